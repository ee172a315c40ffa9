// Puts what has changed into its place. Whatever is put in was made by the server, which lets no text be markup.
"use strict";

const feed = document.getElementById("feed");
const news = new EventSource("events");

news.onmessage = (event) => {
  for (const [id, content] of JSON.parse(event.data)) {
    const place = document.getElementById(id);
    if (place) place.innerHTML = content;
  }
  document.body.dataset.feed = "live";
  feed.textContent = "";
};

// The browser comes again by itself.
news.onerror = () => {
  document.body.dataset.feed = "lost";
  feed.textContent = "This page hears nothing: the front has stopped, or is being started again. It shows how things were.";
};
