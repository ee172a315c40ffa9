//! A CLI agent that does what its messages say: it speaks stream-json like `claude -p`, and stands in for it in tests.
//!
//! Its working directory is its memory: `<id>.turns` counts the turns of a conversation, across programs that `--resume` it, and
//! `starts` has a line for each start: its arguments. Each turn reads `--mcp-config` again and fails if it is not there, as if a tool had
//! been needed.
//!
//! | message | what it does |
//! | --- | --- |
//! | `slow MS` | waits before it answers |
//! | `silent` | says nothing more, and reads nothing more |
//! | `falter` | begins an answer, then says nothing more |
//! | `complain TEXT` | writes it to standard error, then answers |
//! | `crash TEXT` | begins an answer, writes TEXT to standard error and exits with 3 |
//! | `long N` | writes a line of N bytes before its answer |
//! | `many N` | writes N lines that mean nothing |
//! | `garbage` | writes bytes that are no JSON, and no UTF-8 either |
//! | `refuse TEXT` | answers with an error |
//! | `child` | starts a process in its group that outlives it, and answers with its pid |
//! | `stubborn` | ignores SIGINT and SIGTERM from now on, then is silent |
//! | `tools` | asks its MCP endpoint for its tools, and answers with what that said |
//! | `exit` | answers, then exits |
//! | anything else | answers `hello turn N: MESSAGE` |

#![expect(clippy::unwrap_used, reason = "a fixture that cannot go on fails its test")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is spoken with so")]

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let after = |option: &str| {
        args.iter().position(|arg| arg == option).and_then(|at| args.get(at + 1)).cloned()
    };
    let mut starts = OpenOptions::new().create(true).append(true).open("starts").unwrap();
    writeln!(starts, "{}", args.join(" ")).unwrap();
    let resumed = after("--resume");
    if let Some(id) = &resumed
        && !PathBuf::from(format!("{id}.turns")).exists()
    {
        eprintln!("No conversation found with session ID: {id}");
        return ExitCode::FAILURE;
    }
    let id = resumed
        .or_else(|| after("--session-id"))
        .unwrap_or_else(|| format!("conversation-{}", std::process::id()));
    let mut agent = Agent { id, mcp_config: after("--mcp-config").map(PathBuf::from), said: 0 };
    if args.iter().any(|arg| arg == "--input-format") {
        for line in io::stdin().lock().lines() {
            let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let message = asked["message"]["content"].as_str().unwrap().to_owned();
            agent.say(&json!({"type": "user", "message": asked["message"], "isReplay": true}));
            if let Some(code) = agent.turn(&message) {
                return code;
            }
        }
        return ExitCode::SUCCESS;
    }
    let mut message = String::new();
    io::stdin().read_to_string(&mut message).unwrap();
    if message.is_empty() {
        message = args.last().cloned().unwrap_or_default();
    }
    if args.iter().any(|arg| arg == "--plain") {
        println!("{}\n{}", message.trim(), agent.count());
        return ExitCode::SUCCESS;
    }
    agent.turn(message.trim()).unwrap_or(ExitCode::SUCCESS)
}

struct Agent {
    id: String,
    mcp_config: Option<PathBuf>,
    /// How many turns this program has had.
    said: usize,
}

impl Agent {
    /// One turn; the code with which to end after it, if it is to end.
    #[expect(clippy::zombie_processes, reason = "a child that it leaves behind is the point")]
    fn turn(&mut self, message: &str) -> Option<ExitCode> {
        if self.said == 0 {
            self.say(&json!({"type": "system", "subtype": "init", "tools": []}));
        }
        self.said += 1;
        let config = match &self.mcp_config {
            Some(path) => match fs::read_to_string(path) {
                Ok(config) => Some(config),
                Err(error) => {
                    self.result(&format!("no MCP config: {error}"), Answer::Refused);
                    return None;
                }
            },
            None => None,
        };
        let (word, rest) = message.split_once(' ').unwrap_or((message, ""));
        let number = || rest.parse::<usize>().unwrap();
        match word {
            "slow" => wait(Duration::from_millis(rest.parse().unwrap())),
            "silent" => wait(Duration::MAX),
            "falter" => {
                self.delta("Well, ");
                wait(Duration::MAX);
            }
            "complain" => eprintln!("{rest}"),
            "crash" => {
                self.delta("I was about to ");
                eprintln!("{rest}");
                return Some(ExitCode::from(3));
            }
            "long" => write(&[vec![b'x'; number()], vec![b'\n']].concat()),
            "many" => (0..number()).for_each(|_| write(b"{}\n")),
            "garbage" => write(b"\xff\xfe{not json\n[1,2]\n\"text\"\n\n{\"type\":7}\n"),
            "refuse" => {
                self.result(rest, Answer::Refused);
                return None;
            }
            "child" => {
                let mut sleep = Command::new("sleep");
                sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let child = sleep.spawn().unwrap();
                self.answer(&child.id().to_string());
                return None;
            }
            "stubborn" => {
                use nix::sys::signal::{SigSet, Signal};
                let mut ignored = SigSet::empty();
                ignored.add(Signal::SIGINT);
                ignored.add(Signal::SIGTERM);
                ignored.thread_block().unwrap();
                self.delta("no");
                wait(Duration::MAX);
            }
            "tools" => {
                let answer = ask_for_tools(&config.unwrap());
                self.answer(&answer);
                return None;
            }
            _ => {}
        }
        let turn = self.count();
        self.answer(&format!("hello turn {turn}: {message}"));
        (word == "exit").then_some(ExitCode::SUCCESS)
    }

    /// Counts one more turn of the conversation.
    fn count(&self) -> usize {
        let path = format!("{}.turns", self.id);
        let turn = fs::read_to_string(&path).map_or(0, |turns| turns.parse().unwrap()) + 1;
        fs::write(path, turn.to_string()).unwrap();
        turn
    }

    fn answer(&self, text: &str) {
        self.say(&json!({"type": "stream_event", "event": {"type": "message_start"}}));
        let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        let (first, second) = text.split_at(middle);
        self.delta(first);
        self.delta(second);
        let content = json!([{"type": "text", "text": text}]);
        self.say(
            &json!({"type": "assistant", "message": {"role": "assistant", "content": content}}),
        );
        self.result(text, Answer::Given);
    }

    fn delta(&self, text: &str) {
        let delta = json!({"type": "text_delta", "text": text});
        let event = json!({"type": "content_block_delta", "index": 0, "delta": delta});
        self.say(&json!({"type": "stream_event", "event": event}));
    }

    fn result(&self, text: &str, answer: Answer) {
        let usage = json!({"input_tokens": 3, "output_tokens": text.len()});
        let is_error = matches!(answer, Answer::Refused);
        let result =
            json!({"type": "result", "is_error": is_error, "result": text, "usage": usage});
        self.say(&result);
    }

    fn say(&self, line: &Value) {
        let mut line = line.clone();
        line["session_id"] = self.id.clone().into();
        write(format!("{line}\n").as_bytes());
    }
}

fn write(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).unwrap();
    stdout.flush().unwrap();
}

#[derive(Clone, Copy)]
enum Answer {
    Given,
    Refused,
}

#[expect(clippy::disallowed_methods, reason = "it has nothing else to do")]
fn wait(duration: Duration) {
    std::thread::sleep(duration);
}

/// What `tools/list` says, asked as the configuration says it is to be asked.
fn ask_for_tools(config: &str) -> String {
    let config: Value = serde_json::from_str(config).unwrap();
    let server = &config["mcpServers"]["openclaw"];
    let url = server["url"].as_str().unwrap();
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let mut head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    for (name, value) in server["headers"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let variables = value.match_indices("${").map(|(at, _)| &value[at..]);
        let value = variables.fold(value.to_owned(), |filled, variable| {
            let name = variable[2..].split_once('}').unwrap().0;
            filled.replace(&format!("${{{name}}}"), &std::env::var(name).unwrap())
        });
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned(),
        Err(error) => error.to_string(),
    }
}
