use serde::Serialize;

/// Why an event was not taken. The list is closed: clients may rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not JSON, not an object, or a field of a wrong type.
    Malformed,
    /// The site is not in the configuration, or none was named and no site lists the page's host.
    UnknownSite,
    /// The page's host is not one of the site's.
    WrongHost,
    /// The page's URL is missing, or no http(s) URL.
    BadUrl,
    /// No kind of that name.
    BadKind,
    /// A custom event without a name.
    MissingName,
    /// An outbound click or a download that does not say of what.
    MissingTarget,
    /// The time is neither RFC 3339 nor ms since the Unix epoch.
    BadTime,
    /// The time lies further back than who sent it may write.
    TooOld,
    /// The visitor's address is none.
    BadIp,
    /// `ip` and `user_agent` are for those with the site's write token.
    TokenRequired,
    /// A field is over its limit.
    FieldTooLong,
    /// More properties than an event may have.
    TooManyProps,
    /// The site, or who sent it, is over its rate.
    RateLimited,
}

impl Reason {
    pub const ALL: [Reason; 14] = [
        Reason::Malformed,
        Reason::UnknownSite,
        Reason::WrongHost,
        Reason::BadUrl,
        Reason::BadKind,
        Reason::MissingName,
        Reason::MissingTarget,
        Reason::BadTime,
        Reason::TooOld,
        Reason::BadIp,
        Reason::TokenRequired,
        Reason::FieldTooLong,
        Reason::TooManyProps,
        Reason::RateLimited,
    ];

    /// As it stands in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::UnknownSite => "unknown_site",
            Reason::WrongHost => "wrong_host",
            Reason::BadUrl => "bad_url",
            Reason::BadKind => "bad_kind",
            Reason::MissingName => "missing_name",
            Reason::MissingTarget => "missing_target",
            Reason::BadTime => "bad_time",
            Reason::TooOld => "too_old",
            Reason::BadIp => "bad_ip",
            Reason::TokenRequired => "token_required",
            Reason::FieldTooLong => "field_too_long",
            Reason::TooManyProps => "too_many_props",
            Reason::RateLimited => "rate_limited",
        }
    }
}

/// One event that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub reason: Reason,
    /// For a person: the value, and the way out.
    pub detail: String,
}

/// Bytes of a detail: an answer about 10,000 events stays near a megabyte, whatever was sent.
const DETAIL_BYTES_MAX: usize = 160;

impl Reject {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
            detail.push('…');
        }
        Self { reason, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_the_same_in_answers_and_in_metrics() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn a_detail_is_cut_between_characters() {
        let reject = Reject::new(Reason::Malformed, "ä".repeat(200));
        assert_eq!(reject.detail.chars().count(), 81);
        assert!(reject.detail.ends_with("ä…"));
    }
}
