//! `holdfast man`: a manual page for every command.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man as Page;

use super::completions::shown;
use super::{Failed, configuration, help, print, say};

/// Print a manual page, or write all of them
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The command whose page is printed [default: holdfast's own]
    #[arg(value_name = "COMMAND")]
    page: Option<String>,
    /// Write every page into this directory instead, which is made if need be
    #[arg(long, value_name = "DIR", conflicts_with = "page")]
    out: Option<PathBuf>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
enum NoPage {
    #[error("could not write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Man {
    pub(super) fn perform(&self) -> Result<ExitCode, Failed> {
        let pages = pages();
        if let Some(directory) = &self.out {
            write(&pages, directory).map_err(configuration)?;
            say(&format!("{} pages are in {}", pages.len(), directory.display()));
            return Ok(ExitCode::SUCCESS);
        }
        let wanted = match &self.page {
            Some(command) => format!("holdfast-{command}.1"),
            None => "holdfast.1".to_owned(),
        };
        let Some((_, text)) = pages.into_iter().find(|(name, _)| *name == wanted) else {
            let command = self.page.as_deref().unwrap_or_default();
            let meant = format!("there is no command {command:?}; `holdfast --help` lists them");
            return Err(Failed::Usage { meant });
        };
        print(&text);
        Ok(ExitCode::SUCCESS)
    }
}

/// Each page by the name of its file.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut command = shown(help::command());
    command.build();
    let own = std::iter::once(command.clone());
    own.chain(command.get_subcommands().cloned()).map(page).collect()
}

fn page(command: Command) -> (String, Vec<u8>) {
    let page = Page::new(command).source(format!("holdfast {}", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render(&mut text).expect("memory can be written to");
    (page.get_filename(), text)
}

fn write(pages: &[(String, Vec<u8>)], directory: &Path) -> Result<(), NoPage> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| NoPage::Write { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    for (name, text) in pages {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_that_is_shown_has_a_page_with_its_examples() {
        let pages = pages();
        let all = Cli::command();
        for command in all.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = format!("holdfast-{}.1", command.get_name());
            let (_, text) = pages.iter().find(|(page, _)| *page == name).expect("it has a page");
            let text = String::from_utf8_lossy(text);
            assert!(text.contains("Examples:"), "{name}: {text}");
        }
        assert_eq!(pages[0].0, "holdfast.1");
        assert!(pages.iter().all(|(name, _)| !name.contains("stage")));
    }
}
