//! What a plugin's `plugin.json` says, and what is wrong with it.
//!
//! **Invariants**
//! - A file is understood whole or not at all: an unknown key, or one that is there twice, is as wrong as a
//!   missing one.
//! - What is wrong is placed: file, line, column and key.
//! - No text makes reading panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::fields::{Fields, Misplaced};
use crate::identity::Needs;
use crate::state::config::{self, Position, ReadFailed};

/// The file in a plugin's folder.
pub(crate) const FILE: &str = "plugin.json";
/// How long a call may take, unless the plugin says otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a start may take, unless the plugin says otherwise.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is asked how it is, unless the plugin says otherwise.
const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
/// The longest of these, in ms.
const LONGEST_MS: u64 = 3_600_000;
/// The longest name of a plugin, a method or a harness, in bytes.
const LONGEST_NAME: usize = 100;
/// So many methods one plugin may have.
const MOST_METHODS: usize = 256;

/// Why a plugin cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeclarationUnusable {
    /// Its file cannot be read.
    #[error("plugin {plugin:?} cannot be read")]
    Unreadable {
        /// The folder's name.
        plugin: String,
        /// Why.
        source: ReadFailed,
    },
    /// Its folder has a name that is none for a plugin.
    #[error("{} is no name for a plugin; use a-z, 0-9 and -", folder.display())]
    Name {
        /// The folder.
        folder: PathBuf,
    },
    /// Its file says something that is not understood.
    #[error("{}:{}:{}: {problem}", file.display(), position.line, position.column)]
    Wrong {
        /// The file.
        file: PathBuf,
        /// Where in it.
        position: Position,
        /// The key, and what is wrong with it.
        problem: String,
    },
}

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declaration {
    /// What it is called: as its folder.
    pub(crate) id: String,
    /// Where it lies, and works.
    pub(crate) folder: PathBuf,
    /// Its program and arguments.
    pub(crate) command: Vec<String>,
    /// Whether nobody is served without it.
    pub(crate) required: bool,
    /// Whether it runs only where the writer lease is.
    pub(crate) exclusive: bool,
    /// What clients can call.
    pub(crate) methods: Vec<DeclaredMethod>,
    /// What can run agents.
    pub(crate) harnesses: Vec<String>,
    /// Variables it is given.
    pub(crate) environment: BTreeMap<String, String>,
    /// Variables of the worker that it is given too.
    pub(crate) inherit: Vec<String>,
    /// How often it is asked how it is, while it has nothing to do.
    pub(crate) health_interval: Duration,
    /// How long it may take to start.
    pub(crate) start_timeout: Duration,
}

/// A method of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeclaredMethod {
    /// Its name on the wire.
    pub(crate) name: String,
    /// What a caller must hold.
    pub(crate) needs: Needs,
    /// How long a call may take.
    pub(crate) timeout: Duration,
}

impl Declaration {
    /// Reads the declaration in `folder`; `None` when there is none.
    ///
    /// # Errors
    /// [`DeclarationUnusable`].
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, DeclarationUnusable> {
        let plugin = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = config::read(&folder.join(FILE))
            .map_err(|source| DeclarationUnusable::Unreadable { plugin: plugin.clone(), source })?;
        let Some(text) = text else { return Ok(None) };
        if !is_name(&plugin) {
            return Err(DeclarationUnusable::Name { folder: folder.to_owned() });
        }
        Self::parse(&plugin, folder, &text).map(Some)
    }

    fn parse(id: &str, folder: &Path, text: &str) -> Result<Self, DeclarationUnusable> {
        let file = folder.join(FILE);
        let wrong = |(position, problem)| DeclarationUnusable::Wrong {
            file: file.clone(),
            position,
            problem,
        };
        let value = config::parse(text).map_err(|error| {
            let position = error.position.unwrap_or_else(|| Position::of(text.len(), text));
            wrong((position, error.to_string()))
        })?;
        Self::of(id, folder, &value, text)
            .map_err(|misplaced| wrong((misplaced.position(text), misplaced.to_string())))
    }

    fn of(id: &str, folder: &Path, value: &Value, text: &str) -> Result<Self, Misplaced> {
        let places = config::spans(text);
        let whole = Fields::whole(value, places.as_ref())?;
        whole.only(&[
            "command",
            "required",
            "exclusive",
            "methods",
            "harnesses",
            "environment",
            "inherit",
            "timeoutMs",
            "startTimeoutMs",
            "healthIntervalMs",
        ])?;
        let command: Vec<String> = whole.needed("command")?;
        if command.first().is_none_or(String::is_empty) {
            return Err(whole.wrong("command", "it names no program"));
        }
        let duration = |fields: &Fields<'_>, key, otherwise| match fields.maybe::<u64>(key)? {
            None => Ok(otherwise),
            Some(ms) if (1..=LONGEST_MS).contains(&ms) => Ok(Duration::from_millis(ms)),
            Some(_) => Err(fields.wrong(key, format!("write a number from 1 to {LONGEST_MS}"))),
        };
        let call_timeout = duration(&whole, "timeoutMs", CALL_TIMEOUT)?;
        let mut methods = Vec::new();
        for fields in whole.each("methods")? {
            fields.only(&["name", "scope", "timeoutMs"])?;
            let name: String = fields.needed("name")?;
            if !is_method_name(&name) {
                let problem = "write a name of a-z, 0-9 and - with a dot in it, as `notes.add`";
                return Err(fields.wrong("name", problem));
            }
            let scope: String = fields.needed("scope")?;
            let Some(needs) = needs(&scope) else {
                let problem = "write \"read\", \"write\", \"pairing\" or \"admin\"";
                return Err(fields.wrong("scope", problem));
            };
            let timeout = duration(&fields, "timeoutMs", call_timeout)?;
            methods.push(DeclaredMethod { name, needs, timeout });
        }
        if methods.len() > MOST_METHODS {
            return Err(whole.wrong("methods", format!("there are more than {MOST_METHODS}")));
        }
        let harnesses: Vec<String> = whole.maybe("harnesses")?.unwrap_or_default();
        if !harnesses.iter().all(|name| is_name(name)) {
            return Err(whole.wrong("harnesses", "write names of a-z, 0-9 and -"));
        }
        let environment: BTreeMap<String, String> = whole.maybe("environment")?.unwrap_or_default();
        let inherit: Vec<String> = whole.maybe("inherit")?.unwrap_or_default();
        for (key, named) in [
            ("environment", environment.keys().all(|name| is_variable(name))),
            ("inherit", inherit.iter().all(|name| is_variable(name))),
        ] {
            if !named {
                return Err(whole.wrong(key, "write names of variables, without `=`"));
            }
        }
        if environment.values().chain(&command).any(|text| text.contains('\0')) {
            return Err(whole.wrong("command", "no text for a program has a NUL in it"));
        }
        Ok(Self {
            id: id.to_owned(),
            folder: folder.to_owned(),
            command,
            required: whole.maybe("required")?.unwrap_or_default(),
            exclusive: whole.maybe("exclusive")?.unwrap_or_default(),
            methods,
            harnesses,
            environment,
            inherit,
            start_timeout: duration(&whole, "startTimeoutMs", START_TIMEOUT)?,
            health_interval: duration(&whole, "healthIntervalMs", HEALTH_INTERVAL)?,
        })
    }

    /// The program: in the plugin's folder if its name says so, or else wherever it is found.
    pub(crate) fn program(&self) -> PathBuf {
        let named = Path::new(&self.command[0]);
        if self.command[0].contains('/') { self.folder.join(named) } else { named.to_owned() }
    }

    /// Whether the text of a declaration that cannot be used still says that nobody is served without it.
    pub(crate) fn asks_to_be_required(folder: &Path) -> bool {
        let text = config::read(&folder.join(FILE)).ok().flatten();
        let value = text.and_then(|text| config::parse(&text).ok());
        value.is_some_and(|value| value["required"] == true)
    }
}

fn needs(scope: &str) -> Option<Needs> {
    match scope {
        "read" => Some(Needs::Read),
        "write" => Some(Needs::Write),
        "pairing" => Some(Needs::Pairing),
        "admin" => Some(Needs::Admin),
        _ => None,
    }
}

/// Lower case, digits and dashes; a letter first.
fn is_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Names with dots between them.
fn is_method_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && name.contains('.') && name.split('.').all(is_name)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Declaration, String> {
        Declaration::parse("notes", Path::new("/p/notes"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_has_defaults() {
        let declared = parse("{\"command\": [\"./notes\"]}").unwrap();
        assert_eq!(declared.program(), Path::new("/p/notes/./notes"));
        assert_eq!((declared.required, declared.exclusive), (false, false));
        assert_eq!((declared.methods.len(), declared.harnesses.len()), (0, 0));
        assert_eq!(declared.start_timeout, START_TIMEOUT);
        assert_eq!(parse("{command: ['notes']}").unwrap().program(), Path::new("notes"));
    }

    #[test]
    fn a_method_says_who_may_call_it_and_for_how_long() {
        let text = "{command: ['n'], timeoutMs: 5, methods: [
            {name: 'notes.add', scope: 'write'}, {name: 'notes.list.all', scope: 'read', timeoutMs: 7}]}";
        let method = |name: &str, needs, ms| DeclaredMethod {
            name: name.to_owned(),
            needs,
            timeout: Duration::from_millis(ms),
        };
        let expected =
            [method("notes.add", Needs::Write, 5), method("notes.list.all", Needs::Read, 7)];
        assert_eq!(parse(text).unwrap().methods, expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_column_and_key() {
        for (text, problem) in [
            ("{\n  command: ['n'],\n  colour: 1 }", "3:3: colour: this key is not known"),
            ("{command: ['n'],\n command: ['m']}", "2:2: command: this key is there already"),
            ("{}", "1:1: command: this key is missing"),
            ("[]", "1:1: write an object in { }"),
            ("{command: []}", "1:11: command: it names no program"),
            ("{command: 'n'}", "1:11: command: invalid type: string \"n\", expected a sequence"),
            (
                "{command: ['n'], required: 1}",
                "1:28: required: invalid type: integer `1`, expected a boolean",
            ),
            (
                "{command: ['n'],\n methods: [{name: 'notes', scope: 'read'}]}",
                "2:19: methods[0].name: write a name of a-z, 0-9 and - with a dot in it, as `notes.add`",
            ),
            (
                "{command: ['n'], methods: [{name: 'a.b', scope: 'operator.read'}]}",
                "1:49: methods[0].scope: write \"read\", \"write\", \"pairing\" or \"admin\"",
            ),
            (
                "{command: ['n'], methods: [{name: 'a.b', scope: 'read', timeoutMs: 0}]}",
                "1:68: methods[0].timeoutMs: write a number from 1 to 3600000",
            ),
            ("{command: ['n'], methods: {}}", "1:27: methods: write a list in [ ]"),
            ("{command: ['n'], methods: ['a.b']}", "1:28: methods[0]: write an object in { }"),
            (
                "{command: ['n'], inherit: ['A=B']}",
                "1:27: inherit: write names of variables, without `=`",
            ),
        ] {
            let expected = format!("/p/notes/plugin.json:{problem}");
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
        assert!(parse("{command: [").unwrap_err().starts_with("/p/notes/plugin.json:1:"));
    }

    #[test]
    fn names_are_plain_and_methods_have_a_namespace() {
        for name in ["notes.add", "a.b.c-1", "n2.x"] {
            assert!(is_method_name(name), "{name}");
        }
        let long = format!("a.{}", "b".repeat(LONGEST_NAME));
        for name in
            ["notes", ".add", "notes.", "a..b", "Notes.add", "a.b c", "a.ä", "", "1.a", &long]
        {
            assert!(!is_method_name(name), "{name}");
        }
    }

    #[test]
    fn no_text_makes_reading_panic() {
        use proptest::test_runner::{Config, TestRunner};
        let words = proptest::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "command", "methods", "name", "'a.b'", "1", "'", "\\",
            "ä", "\n",
        ]);
        let texts = proptest::collection::vec(words, 0..24);
        TestRunner::new(Config { failure_persistence: None, ..Config::default() })
            .run(&texts, |words| {
                let _ = parse(&words.concat());
                Ok(())
            })
            .unwrap();
    }
}
