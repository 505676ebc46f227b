use std::{io, path::PathBuf};

use weir_log::LogError;

/// Why an import, or taking one back, did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("site {0:?} is not known here (add it to the configuration, or set `ingest.accept_any_site`)")]
    UnknownSite(String),
    #[error("stdin can be read once and alone (give `-` and no file beside it)")]
    StdinNotAlone,
    #[error("cannot read {input}: {cause}; nothing was imported")]
    Read { input: String, cause: io::Error },
    #[error("cannot write {path}: {cause}; nothing was imported (give `--rejects` another place)")]
    Rejects { path: PathBuf, cause: io::Error },
    #[error("cannot sort in {dir}: {cause} (give `--temp-dir` one with room, or `--memory-mb` more)")]
    Sort { dir: PathBuf, cause: io::Error },
    #[error("{input} was imported before, by {ids}, and has nothing new (give `--again` to count it once more)")]
    Again { input: String, ids: String },
    #[error(
        "import {id} holds a later part of {input}, while what lies before it was taken back \
         (run `weir import undo {id}` first, or give `--again` to count all of the file)"
    )]
    Gap { input: String, id: String },
    #[error(
        "another import of site {site:?}, {id}, is being written; nothing was imported (run this again when it is done)"
    )]
    Busy { site: String, id: String },
    #[error(
        "import {id} of site {site:?} was written or taken back while this one read its files; nothing was imported (run this again)"
    )]
    Overtaken { site: String, id: String },
    #[error("import {0} was taken back by somebody else while it was written: nothing of it is counted")]
    TakenBack(String),
    #[error("interrupted before anything was written: nothing was imported")]
    Interrupted,
    #[error("import {id} failed and was taken back, nothing of it is counted: {cause}")]
    Failed { id: String, cause: Box<ImportError> },
    #[error(
        "import {id} failed: {cause}; it could not be taken back: {taking_back}. Nothing of it is counted \
         (the next import of the site takes it back, or `weir import undo {id}`)"
    )]
    Unfinished { id: String, cause: Box<ImportError>, taking_back: Box<LogError> },
    #[error("interrupted")]
    Stopped,
    #[error("there is no import {0} (run `weir import list`)")]
    UnknownImport(String),
    #[error(
        "import {id} is to be taken back, but within {seconds} s nobody did so (it happens as soon as \
         `weir serve` or `weir pipeline` runs; see `weir import list`)"
    )]
    UndoPending { id: String, seconds: u64 },
    #[error("the country database: {0}")]
    Countries(#[from] weir_ingest::CountriesError),
    #[error(transparent)]
    Log(#[from] LogError),
}
