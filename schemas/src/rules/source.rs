use super::{
    Source, channel,
    referrer::Referrer,
    sources::{ClickId, Site, Sources},
    text,
};

/// Where a hit on a page of `host` came from.
pub(super) fn of(sources: &Sources, host: &str, query: &str, referrer: &str) -> Source {
    let tags = Tags::read(sources, query);
    let referrer = Referrer::parse(referrer);
    let external = referrer.as_ref().is_none_or(|referrer| referrer.host != text::host_key(host));
    if !external {
        return tags.into_source(Source::default());
    }
    let referring_site = referrer.as_ref().and_then(|referrer| sources.site(&referrer.host));
    let (source, site) = named(sources, &tags, referrer.as_ref(), referring_site);
    let channel = channel::of(&channel::Facts {
        kind: site.map(|site| site.kind),
        any_source: !source.is_empty(),
        click_id: tags.click_id,
        utm_source: &tags.utm_source.to_lowercase(),
        utm_medium: &tags.utm_medium.to_lowercase(),
        ai_medium: &sources.ai_medium,
    });
    tags.into_source(Source {
        source: if source.is_empty() { "Direct".to_owned() } else { source },
        channel,
        referrer: referrer.as_ref().map(Referrer::host_and_path).unwrap_or_default(),
        search_term: referrer
            .zip(referring_site)
            .map(|(referrer, site)| search_term(&referrer, site))
            .unwrap_or_default(),
        external,
        ..Source::default()
    })
}

/// The source's name, empty if nothing names one, and its site if that is a known one.
///
/// A tag in the page's address counts before the referrer, the referrer before a click id.
fn named<'a>(
    sources: &'a Sources,
    tags: &Tags<'_>,
    referrer: Option<&Referrer<'_>>,
    referring_site: Option<&'a Site>,
) -> (String, Option<&'a Site>) {
    let tag = if tags.utm_source.is_empty() { &tags.reference } else { &tags.utm_source };
    if !tag.is_empty() {
        return match sources.site_tagged(tag) {
            Some(site) => (site.name.clone(), Some(site)),
            None => (tag.clone(), None),
        };
    }
    match (referring_site, referrer, tags.click_id) {
        (Some(site), _, _) => (site.name.clone(), Some(site)),
        (None, Some(referrer), _) => (text::value(&referrer.host), None),
        (None, None, Some(id)) => (id.source.clone(), sources.site_tagged(&id.source)),
        (None, None, None) => (String::new(), None),
    }
}

fn search_term(referrer: &Referrer<'_>, site: &Site) -> String {
    let term = site.term.iter().find_map(|param| {
        let (_, value) = text::parameters(referrer.query).find(|(name, value)| name == param && !value.is_empty())?;
        Some(text::value(&text::decoded(value).to_lowercase()))
    });
    term.unwrap_or_default()
}

/// What the page's own address says of the visit.
#[derive(Default)]
struct Tags<'a> {
    utm_source: String,
    utm_medium: String,
    utm_campaign: String,
    utm_term: String,
    utm_content: String,
    /// `ref`.
    reference: String,
    click_id: Option<&'a ClickId>,
}

impl<'a> Tags<'a> {
    /// Of a parameter that is there twice, the first that is not empty.
    fn read(sources: &'a Sources, query: &str) -> Tags<'a> {
        let mut tags = Tags::default();
        for (name, value) in text::parameters(query).filter(|(_, value)| !value.is_empty()) {
            let name = name.to_ascii_lowercase();
            let field = match name.as_str() {
                "utm_source" => &mut tags.utm_source,
                "utm_medium" => &mut tags.utm_medium,
                "utm_campaign" => &mut tags.utm_campaign,
                "utm_term" => &mut tags.utm_term,
                "utm_content" => &mut tags.utm_content,
                "ref" => &mut tags.reference,
                _ => {
                    tags.click_id = tags.click_id.or_else(|| sources.click_id(&name));
                    continue;
                }
            };
            if field.is_empty() {
                *field = text::value(&text::decoded(value));
            }
        }
        tags
    }

    fn into_source(self, source: Source) -> Source {
        let Tags { utm_source, utm_medium, utm_campaign, utm_term, utm_content, .. } = self;
        Source { utm_source, utm_medium, utm_campaign, utm_term, utm_content, ..source }
    }
}
