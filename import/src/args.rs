use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Imports access logs: reads, sorts, writes them as events of a site that are counted like any other.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
pub struct ImportCommand {
    #[command(subcommand)]
    pub task: Option<ImportTask>,
    #[command(flatten)]
    pub files: Option<ImportArgs>,
    /// Prints one JSON object instead of tables
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ImportTask {
    /// Takes an import back as a whole: its rows, and what it wrote to the log
    Undo {
        /// The import's id, as `weir import` said and `weir import list` says
        id: String,
        /// Gives up waiting after so many seconds; it is taken back nevertheless as soon as the pipeline runs
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
        /// Says what would be taken back
        #[arg(long)]
        dry_run: bool,
    },
    /// Lists all imports and what became of them
    List,
}

/// What to import.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The site whose log it is
    #[arg(long)]
    pub site: String,
    /// Access logs in Common or Combined Log Format, as they are or packed by gzip; `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Host of the site's pages, so that its own referrers are known as such [default: the site's first host in the
    /// configuration, or its name if that is a domain]
    #[arg(long)]
    pub host: Option<String>,
    /// Reads and counts, and writes nothing but the rejects
    #[arg(long)]
    pub dry_run: bool,
    /// Imports also what was imported before, which then counts twice
    #[arg(long)]
    pub again: bool,
    /// The files will not grow: takes a last line that has no end
    #[arg(long)]
    pub finished: bool,
    /// Where lines go that cannot be read [default: import-ID.rejects in the current directory]
    #[arg(long, value_name = "PATH")]
    pub rejects: Option<PathBuf>,
    /// Memory for sorting; what is more goes to a file in `--temp-dir`
    #[arg(long, value_name = "MB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=2048))]
    pub memory_mb: u32,
    /// Where sorting puts what has no room in memory [default: $TMPDIR, or /tmp]
    #[arg(long, value_name = "DIR")]
    pub temp_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        command: ImportCommand,
    }

    fn parsed(line: &[&str]) -> Result<ImportCommand, String> {
        let line = [&["import"], line].concat();
        Cli::try_parse_from(line).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn a_site_and_files_or_a_task_is_what_it_takes() {
        Cli::command().debug_assert();
        let files = parsed(&["--site", "s", "a.log", "-", "--json"]).unwrap();
        assert!(files.json && files.task.is_none());
        assert_eq!(files.files.unwrap().files, [PathBuf::from("a.log"), PathBuf::from("-")]);
        let undo = parsed(&["undo", "id", "--json"]).unwrap();
        assert!(undo.json && undo.files.is_none());
        assert!(matches!(undo.task, Some(ImportTask::Undo { id, wait: 60, dry_run: false }) if id == "id"));
        assert!(matches!(parsed(&["list"]).unwrap().task, Some(ImportTask::List)));
        assert!(parsed(&["a.log"]).unwrap_err().contains("--site"));
        assert!(parsed(&["--site", "s"]).unwrap_err().contains("FILE"));
        assert!(parsed(&["--site", "s", "--memory-mb", "0", "a.log"]).unwrap_err().contains("1..=2048"));
        assert!(parsed(&[]).is_err());
    }
}
