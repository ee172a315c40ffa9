//! What clients send: masked frames, byte by byte as RFC 6455, 5.2 has them.

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The name of the transcript with a message that is never whole.
pub(crate) const CUT_SHORT: &str = "a close within a message";

/// Some frames in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    pub(crate) bytes: Vec<u8>,
    frames: u32,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A message in one frame, or a control frame.
    pub(crate) fn whole(self, opcode: u8, payload: &[u8]) -> Self {
        self.frame(0x80 | opcode, payload)
    }

    /// The first frame of a message.
    pub(crate) fn first(self, opcode: u8, payload: &[u8]) -> Self {
        self.frame(opcode, payload)
    }

    pub(crate) fn middle(self, payload: &[u8]) -> Self {
        self.frame(0x00, payload)
    }

    pub(crate) fn last(self, payload: &[u8]) -> Self {
        self.frame(0x80, payload)
    }

    /// A message whose length takes eight bytes, however short it is. tungstenite reads that.
    pub(crate) fn whole_with_long_length(self, opcode: u8, payload: &[u8]) -> Self {
        let length = u64::try_from(payload.len()).unwrap().to_be_bytes();
        self.head_and_payload(&[&[0x80 | opcode, 0xff], &length[..]].concat(), payload)
    }

    /// Bytes that are no frame.
    pub(crate) fn garbage(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub(crate) fn frame(self, first: u8, payload: &[u8]) -> Self {
        let length = u64::try_from(payload.len()).unwrap().to_be_bytes();
        let head = match payload.len() {
            0..=125 => vec![first, 0x80 | length[7]],
            126..=0xffff => vec![first, 0xfe, length[6], length[7]],
            _ => [&[first, 0xff], &length[..]].concat(),
        };
        self.head_and_payload(&head, payload)
    }

    fn head_and_payload(mut self, head: &[u8], payload: &[u8]) -> Self {
        self.frames += 1;
        // Another key for each frame, none of whose bytes is 0.
        let key = self.frames.wrapping_mul(0x9e37_79b9).to_le_bytes().map(|byte| byte | 1);
        self.bytes.extend(head);
        self.bytes.extend(key);
        self.bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        self
    }
}

/// Twenty short transcripts, with their names.
pub(crate) fn transcripts() -> Vec<(&'static str, Vec<u8>)> {
    let grin = "😀".as_bytes();
    let alphabet: Vec<u8> = (b'a'..=b'z').cycle().take(300).collect();
    let transcripts: [_; 20] = [
        ("a text", Client::new().whole(TEXT, b"hello")),
        ("an empty text", Client::new().whole(TEXT, b"")),
        ("a binary", Client::new().whole(BINARY, &(0..=50).collect::<Vec<u8>>())),
        ("empty binaries", Client::new().whole(BINARY, b"").whole(BINARY, b"")),
        (
            "back to back",
            Client::new().whole(TEXT, b"one").whole(BINARY, b"two").whole(TEXT, b"three"),
        ),
        ("the longest 7-bit length", Client::new().whole(TEXT, &alphabet[..125])),
        ("the shortest 16-bit length", Client::new().whole(TEXT, &alphabet[..126])),
        ("a 16-bit length", Client::new().whole(BINARY, &alphabet).whole(TEXT, b"after")),
        (
            "a 64-bit length",
            Client::new().whole_with_long_length(TEXT, &alphabet[..40]).whole(TEXT, b"after"),
        ),
        (
            "a fragmented text",
            Client::new().first(TEXT, b"frag").middle(b"men").last(b"ted").whole(TEXT, b"after"),
        ),
        (
            "empty fragments",
            Client::new().first(BINARY, b"").middle(b"").middle(b"x").middle(b"").last(b""),
        ),
        (
            "a ping between fragments",
            Client::new().first(TEXT, b"be").whole(PING, b"are you").last(b"tween"),
        ),
        (
            "pings and pongs between many fragments",
            Client::new()
                .first(BINARY, b"a")
                .whole(PING, b"1")
                .middle(b"b")
                .middle(b"c")
                .whole(PONG, b"2")
                .whole(PING, b"3")
                .middle(b"d")
                .last(b"e")
                .whole(PING, b"4"),
        ),
        ("pings", Client::new().whole(PING, b"").whole(PING, b"x").whole(PING, &alphabet[..125])),
        ("pongs nobody asked for", Client::new().whole(PONG, b"").whole(PONG, b"why")),
        (
            "a character across fragments",
            Client::new().first(TEXT, &grin[..1]).middle(&grin[1..3]).last(&grin[3..]),
        ),
        (
            "a ping within a character",
            Client::new().first(TEXT, &grin[..2]).whole(PING, grin).last(&grin[2..]),
        ),
        (
            "messages, then a close with a reason",
            Client::new().whole(TEXT, b"bye").whole(PING, b"?").whole(CLOSE, b"\x03\xe8done"),
        ),
        (CUT_SHORT, Client::new().first(TEXT, b"never ").whole(PING, b"!").whole(CLOSE, b"")),
        (
            "pings between messages",
            Client::new()
                .whole(PING, b"1")
                .whole(TEXT, b"2")
                .whole(PING, b"3")
                .whole(BINARY, b"4")
                .whole(PING, b"5"),
        ),
    ];
    named(transcripts)
}

/// Transcripts that end in what is no frame, or no text.
pub(crate) fn broken_transcripts() -> Vec<(&'static str, Vec<u8>)> {
    named([
        (
            "a text that is none",
            Client::new().whole(TEXT, b"fine").first(TEXT, b"\xff").last(b"never"),
        ),
        ("a reserved opcode", Client::new().whole(TEXT, b"fine").frame(0x83, b"?")),
        (
            "a length beyond all bounds",
            Client::new().first(TEXT, b"fine").garbage(&[0x80, 0xff]).garbage(&[0xff; 16]),
        ),
    ])
}

fn named<const N: usize>(transcripts: [(&'static str, Client); N]) -> Vec<(&'static str, Vec<u8>)> {
    transcripts.map(|(name, client)| (name, client.bytes)).into()
}
