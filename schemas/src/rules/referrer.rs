use super::text;

/// A referrer taken apart. Borrowed as it stands, but for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Referrer<'a> {
    /// Lower case, without `www.`, user and port.
    pub(super) host: String,
    /// With its slash in front; empty if there is none.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl<'a> Referrer<'a> {
    /// `None` for what names no site: empty, `-`, `about:blank`, a file, anything that is no address.
    pub(super) fn parse(referrer: &'a str) -> Option<Referrer<'a>> {
        let referrer = referrer.trim();
        let rest = match referrer.split_once("://") {
            Some((scheme, rest)) => ["http", "https", "android-app", "ios-app"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known))
                .then_some(rest)?,
            None => referrer.strip_prefix("//").unwrap_or(referrer),
        };
        let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = text::host_key(without_port(authority.rsplit_once('@').map_or(authority, |(_user, host)| host)));
        let is_host = !host.is_empty()
            && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
            && (referrer.contains("://") || host.contains('.'));
        is_host.then_some(Referrer { host, path, query })
    }

    /// Host and path, as the table has it; a path that is only a slash is none.
    pub(super) fn host_and_path(&self) -> String {
        let path = if self.path == "/" { "" } else { self.path };
        text::value(&format!("{}{path}", self.host))
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // "[::1]" has colons of its own.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}
