use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Bytes of one derived value (browser, source, search term, …); what is longer is cut at a character.
pub const VALUE_BYTES_MAX: usize = 512;

/// The string as a value of the table: trimmed, without control characters, at most [`VALUE_BYTES_MAX`] long.
pub(super) fn value(string: &str) -> String {
    let string = string.trim();
    let mut out = String::with_capacity(string.len().min(VALUE_BYTES_MAX));
    for character in string.chars().filter(|character| !character.is_control()) {
        if out.len() + character.len_utf8() > VALUE_BYTES_MAX {
            break;
        }
        out.push(character);
    }
    out.truncate(out.trim_end().len());
    out
}

/// The value of a query parameter: `+` is a space, `%41` an `A`; bytes that are not UTF-8 become U+FFFD.
pub(super) fn decoded(parameter: &str) -> String {
    let spaced: Cow<str> =
        if parameter.contains('+') { parameter.replace('+', " ").into() } else { Cow::Borrowed(parameter) };
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// (name, value) of each parameter, both as they stand in the query.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = query.strip_prefix('?').unwrap_or(query);
    query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Lower case and without `www.`, so that `WWW.Example.com` and `example.com` are one.
pub(super) fn host_key(host: &str) -> String {
    let host = host.trim().trim_end_matches('.').to_lowercase();
    match host.strip_prefix("www.") {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => host,
    }
}

/// The lines of an embedded list that are neither empty nor a comment.
pub(super) fn lines(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}
