//! The format of Plausible's tracker: JSON with one-letter names.

use serde::Deserialize;

use crate::{
    Hit, Reason, Reject,
    hit::{Props, Text},
};

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Payload<'a> {
    #[serde(alias = "name")]
    n: Text<'a>,
    #[serde(alias = "url")]
    u: Text<'a>,
    #[serde(alias = "domain")]
    d: Text<'a>,
    #[serde(alias = "referrer")]
    r: Text<'a>,
    #[serde(alias = "props", alias = "m", alias = "meta")]
    p: Props<'a>,
}

/// Reads what the tracker sends; `None` for `engagement`, which is taken and counts for nothing.
pub(crate) fn hit(body: &[u8]) -> Result<Option<Hit<'_>>, Reject> {
    let malformed = |detail: String| Reject::new(Reason::Malformed, detail);
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("an event is a JSON object".into()));
    }
    let payload: Payload<'_> = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let mut hit = Hit { site: payload.d, url: payload.u, referrer: payload.r, props: payload.p, ..Hit::default() };
    let mut target_of = |kind: &'static str| {
        hit.kind = kind.into();
        hit.target = Text(hit.props.take("url").unwrap_or_default());
    };
    match &*payload.n {
        "" => return Err(malformed("n, the event's name, is missing".into())),
        "engagement" => return Ok(None),
        "pageview" => {}
        "Outbound Link: Click" => target_of("outbound"),
        "File Download" => target_of("download"),
        _ => {
            hit.kind = "custom".into();
            hit.name = payload.n;
        }
    }
    Ok(Some(hit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<(String, String, String, usize)> {
        let hit = hit(json.as_bytes()).unwrap()?;
        Some((hit.kind.to_string(), hit.name.to_string(), hit.target.to_string(), hit.props.pairs.len()))
    }

    fn some(kind: &str, name: &str, target: &str, props: usize) -> Option<(String, String, String, usize)> {
        Some((kind.into(), name.into(), target.into(), props))
    }

    #[test]
    fn names_become_kinds() {
        assert_eq!(
            read(r#"{"n":"pageview","u":"https://a/","d":"a","r":null,"p":{"x":"1"},"h":1}"#),
            some("", "", "", 1)
        );
        let outbound = r#"{"n":"Outbound Link: Click","u":"https://a/","d":"a","p":{"url":"https://b/","x":1}}"#;
        assert_eq!(read(outbound), some("outbound", "", "https://b/", 1));
        let download = r#"{"n":"File Download","u":"https://a/","d":"a","p":"{\"url\":\"https://a/x.pdf\"}"}"#;
        assert_eq!(read(download), some("download", "", "https://a/x.pdf", 0));
        assert_eq!(read(r#"{"n":"Signup","u":"https://a/","d":"a"}"#), some("custom", "Signup", "", 0));
        assert_eq!(read(r#"{"name":"Signup","url":"https://a/","domain":"a"}"#), some("custom", "Signup", "", 0));
    }

    #[test]
    fn engagement_counts_for_nothing() {
        assert_eq!(read(r#"{"n":"engagement","u":"https://a/","d":"a","e":1234,"sd":55,"v":26}"#), None);
    }

    #[test]
    fn what_is_no_event_is_malformed() {
        for body in ["", "null", "[]", "{}", "{\"n\":7}", "{\"n\":\"pageview\""] {
            assert_eq!(hit(body.as_bytes()).unwrap_err().reason, Reason::Malformed, "{body}");
        }
    }
}
