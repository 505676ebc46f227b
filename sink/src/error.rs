//! What can go wrong with ClickHouse, and what is done about it: read [`Failure::of`].

use crate::prepare::Altered;

/// Why the sink stopped. What can be tried again never gets here.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error(
        "another process owns run {run} now, or its rights were taken away by an undo, a recovery or a restore: {said} \
         (nothing is lost; see `weir status` for who runs it)"
    )]
    Refused { run: String, said: String },
    #[error("clickhouse at {url} refuses, and will again: {said} ({way_out})")]
    Stopped { url: String, said: String, way_out: &'static str },
    #[error("table {} is not as this version of weir makes it: {} ({})", .0.table, .0.differs, .0.way_out())]
    Altered(Altered),
    #[error(
        "what run {run} had recorded before {} is not recorded any more: a copy was brought back, or \
         `emissions` was changed by hand (start the run again: it begins at its checkpoint)",
        weir_schemas::instant(*.held_from_ms)
    )]
    CheckpointMoved { run: String, held_from_ms: i64 },
    #[error("live rows cannot be undone: give the import's id")]
    UndoLive,
    #[error("clickhouse at {url} does not answer: {said}")]
    Unreachable { url: String, said: String },
    #[error("{0}")]
    Server(String),
}

/// What an answer means for the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It may have been done or not, or was not; the next turn asks. Backoff, then begin the turn again.
    Unclear,
    /// The statement was not this owner's to make.
    Refused,
    /// The same statement will be refused for ever: a person is needed.
    Hopeless(&'static str),
}

/// A statement that was not answered well.
#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: Kind,
    /// In the table's own words.
    pub said: String,
}

impl Failure {
    pub(crate) fn timed_out(what: &str) -> Failure {
        Failure { kind: Kind::Unclear, said: format!("no answer to {what} in time") }
    }

    /// The policy, in one place. Everything not named is tried again: network, timeouts, a restarting server, 252 too
    /// many parts, 241 memory, 243 disk full, 394 killed.
    pub(crate) fn of(error: &clickhouse::error::Error) -> Failure {
        let said = error.to_string();
        let kind = match code(&said) {
            // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: the fence. UNKNOWN_TABLE of `owners`: a restore has closed everything.
            Some(395) => Kind::Refused,
            Some(60) if said.contains("owners") => Kind::Refused,
            // UNKNOWN_TABLE, UNKNOWN_DATABASE
            Some(60 | 81) => Kind::Hopeless("run `weir doctor`; the tables are made at start"),
            // columns: THERE_IS_NO_COLUMN, NO_SUCH_COLUMN_IN_TABLE, NUMBER_OF_COLUMNS_DOESNT_MATCH, UNKNOWN_IDENTIFIER,
            // TYPE_MISMATCH, NOT_FOUND_COLUMN_IN_BLOCK, INCOMPATIBLE_COLUMNS, ILLEGAL_COLUMN, CANNOT_CONVERT_TYPE,
            // VIOLATED_CONSTRAINT, ALTER_OF_COLUMN_IS_FORBIDDEN
            Some(8 | 10 | 16 | 20 | 44 | 47 | 53 | 70 | 122 | 469 | 524) => Kind::Hopeless(
                "somebody altered the table: put it back as it was made, or move it away with RENAME TABLE",
            ),
            // UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, ACCESS_DENIED, AUTHENTICATION_FAILED
            Some(192 | 193 | 194 | 497 | 516) => {
                Kind::Hopeless("check clickhouse.user and clickhouse.password, and its grants")
            }
            // READONLY, TABLE_IS_READ_ONLY is not among them: a replica may recover
            Some(164) => Kind::Hopeless("the writer needs a user that may write"),
            // UNKNOWN_FUNCTION, UNKNOWN_SETTING, SYNTAX_ERROR, ILLEGAL_TYPE_OF_ARGUMENT, NOT_IMPLEMENTED
            Some(43 | 46 | 48 | 62 | 115) => Kind::Hopeless("weir needs ClickHouse 24.8 or later"),
            _ => match error {
                clickhouse::error::Error::InvalidParams(_) | clickhouse::error::Error::Unsupported(_) => {
                    Kind::Hopeless("check clickhouse.url")
                }
                clickhouse::error::Error::SchemaMismatch(_) => Kind::Hopeless("weir needs ClickHouse 24.8 or later"),
                _ => Kind::Unclear,
            },
        };
        Failure { kind, said: said.chars().take(500).collect() }
    }

    pub(crate) fn into_error(self, url: &str, run: &str) -> SinkError {
        match self.kind {
            Kind::Refused => SinkError::Refused { run: run.to_owned(), said: self.said },
            Kind::Hopeless(way_out) => SinkError::Stopped { url: url.to_owned(), said: self.said, way_out },
            Kind::Unclear => SinkError::Unreachable { url: url.to_owned(), said: self.said },
        }
    }
}

/// The number in ClickHouse's `Code: 60. DB::Exception: …`.
fn code(said: &str) -> Option<u32> {
    let rest = &said[said.find("Code: ")? + "Code: ".len()..];
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(said: &str) -> Kind {
        Failure::of(&clickhouse::error::Error::BadResponse(said.to_owned())).kind
    }

    #[test]
    fn the_fence_refuses_and_a_missing_owners_table_too() {
        assert_eq!(kind_of("Code: 395. DB::Exception: weir: not the owner"), Kind::Refused);
        assert_eq!(
            kind_of("Code: 60. DB::Exception: Unknown table expression identifier 'weir.owners'"),
            Kind::Refused
        );
        assert!(matches!(kind_of("Code: 60. DB::Exception: Table weir.stats_v1 does not exist"), Kind::Hopeless(_)));
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for said in ["Code: 252. Too many parts", "Code: 241. Memory limit", "Code: 243. Disk", "502 Bad Gateway", ""] {
            assert_eq!(kind_of(said), Kind::Unclear, "{said}");
        }
        assert_eq!(Failure::of(&clickhouse::error::Error::TimedOut).kind, Kind::Unclear);
    }

    #[test]
    fn what_a_person_must_mend_stops() {
        for said in [
            "Code: 516. Authentication failed",
            "Code: 16. No such column",
            "Code: 497. Not enough privileges",
            "Code: 469. Constraint `c` is violated",
        ] {
            assert!(matches!(kind_of(said), Kind::Hopeless(_)), "{said}");
        }
    }
}
