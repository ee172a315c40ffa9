//! `holdfast-worker check`: what is wrong with the configuration, before anybody runs with it.
//!
//! **Invariants**
//! - It prints no value of the file: what is wrong may be a secret in the wrong place.
//! - It reads and writes nothing else, and needs no state directory.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use handoff::chain;

use crate::state::config::{
    Environment, Finding, Severity, Understood, read, schema, understand, usual_path,
};

/// What is asked.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Check {
    /// Print the JSON Schema of what is read of a configuration, instead of reading one.
    #[arg(long)]
    schema: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A worker would start with it.
    Usable,
    /// It would not.
    Unusable,
}

/// Checks the configuration at `path`, or the usual one, and says so on `out`.
///
/// # Errors
/// Those of `out`.
pub(crate) fn check(
    asked: Check,
    path: Option<PathBuf>,
    environment: &Environment,
    out: &mut impl Write,
) -> io::Result<Verdict> {
    if asked.schema {
        writeln!(out, "{:#}", schema())?;
        return Ok(Verdict::Usable);
    }
    let named = path.is_some();
    let Some(path) = path.or_else(usual_path) else {
        writeln!(out, "there is no home directory; name the file with --config")?;
        return Ok(Verdict::Unusable);
    };
    match read(&path) {
        Ok(Some(text)) => judge(&path, &text, environment, out),
        Ok(None) if named => {
            writeln!(out, "{}: error: there is no such file", path.display())?;
            Ok(Verdict::Unusable)
        }
        Ok(None) => {
            writeln!(out, "{}: there is no such file; the defaults hold", path.display())?;
            Ok(Verdict::Usable)
        }
        Err(failed) => {
            writeln!(out, "{}: error: {}", path.display(), chain(&failed))?;
            Ok(Verdict::Unusable)
        }
    }
}

fn judge(
    path: &Path,
    text: &str,
    environment: &Environment,
    out: &mut impl Write,
) -> io::Result<Verdict> {
    let understood = understand(text, environment);
    let (verdict, findings) = match &understood {
        Ok(Understood { warnings, .. }) => (Verdict::Usable, warnings),
        Err(findings) => (Verdict::Unusable, findings),
    };
    for finding in findings {
        say(path, finding, out)?;
    }
    if let Ok(Understood { settled, .. }) = &understood {
        let config = settled.config();
        let (agents, providers) = (config.agents.list.len().max(1), config.models.providers.len());
        writeln!(
            out,
            "{}: usable: {}, {}",
            path.display(),
            count(agents, "agent"),
            count(providers, "model provider"),
        )?;
    }
    Ok(verdict)
}

fn say(path: &Path, finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{}:", path.display())?;
    if let Some(position) = finding.position {
        write!(out, "{}:{}:", position.line, position.column)?;
    }
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    writeln!(out, " {severity}: {finding}")
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
