use std::{ops::Range, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use toml::Spanned;

use crate::{Kind, Names, WindowWidth, rules::Rules};

/// What rows are grouped by, besides site and window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// The site as a whole; its value is empty.
    Site,
    Page,
    /// The page of a view whose referrer is empty or of another host.
    EntryPage,
    Source,
    Channel,
    Referrer,
    SearchTerm,
    Country,
    Browser,
    Os,
    Device,
    Outbound,
    Download,
    UtmSource,
    UtmMedium,
    UtmCampaign,
    UtmTerm,
    UtmContent,
    /// Each property is a dimension of its own, `prop:NAME`.
    Props,
}

/// A number that adds up over rows. `visitors` and `visitor_check` are always there and not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    PageViews,
    OutboundClicks,
    AdClicks,
    Downloads,
    CustomEvents,
    /// Events of any kind by a bot; the other measures and `visitors` leave bots out.
    BotEvents,
}

impl Dimension {
    pub const ALL: [Dimension; 19] = [
        Dimension::Site,
        Dimension::Page,
        Dimension::EntryPage,
        Dimension::Source,
        Dimension::Channel,
        Dimension::Referrer,
        Dimension::SearchTerm,
        Dimension::Country,
        Dimension::Browser,
        Dimension::Os,
        Dimension::Device,
        Dimension::Outbound,
        Dimension::Download,
        Dimension::UtmSource,
        Dimension::UtmMedium,
        Dimension::UtmCampaign,
        Dimension::UtmTerm,
        Dimension::UtmContent,
        Dimension::Props,
    ];

    /// The name in a schema version's file, and in the column `dimension` unless the version has another ([`Names`]); of properties see [`Dimension::of_prop`].
    pub const fn name(self) -> &'static str {
        match self {
            Dimension::Site => "site",
            Dimension::Page => "page",
            Dimension::EntryPage => "entry_page",
            Dimension::Source => "source",
            Dimension::Channel => "channel",
            Dimension::Referrer => "referrer",
            Dimension::SearchTerm => "search_term",
            Dimension::Country => "country",
            Dimension::Browser => "browser",
            Dimension::Os => "os",
            Dimension::Device => "device",
            Dimension::Outbound => "outbound",
            Dimension::Download => "download",
            Dimension::UtmSource => "utm_source",
            Dimension::UtmMedium => "utm_medium",
            Dimension::UtmCampaign => "utm_campaign",
            Dimension::UtmTerm => "utm_term",
            Dimension::UtmContent => "utm_content",
            Dimension::Props => "prop:*",
        }
    }
}

impl Measure {
    pub const ALL: [Measure; 6] = [
        Measure::PageViews,
        Measure::OutboundClicks,
        Measure::AdClicks,
        Measure::Downloads,
        Measure::CustomEvents,
        Measure::BotEvents,
    ];

    /// The name in a schema version's file, and of the column.
    pub const fn name(self) -> &'static str {
        match self {
            Measure::PageViews => "page_views",
            Measure::OutboundClicks => "outbound_clicks",
            Measure::AdClicks => "ad_clicks",
            Measure::Downloads => "downloads",
            Measure::CustomEvents => "custom_events",
            Measure::BotEvents => "bot_events",
        }
    }

    /// Whether an event of this kind counts for the measure.
    pub fn counts(self, kind: Kind, bot: bool) -> bool {
        match self {
            Measure::BotEvents => bot,
            Measure::PageViews => !bot && kind == Kind::PageView,
            Measure::OutboundClicks => !bot && kind == Kind::Outbound,
            Measure::AdClicks => !bot && kind == Kind::AdClick,
            Measure::Downloads => !bot && kind == Kind::Download,
            Measure::CustomEvents => !bot && kind == Kind::Custom,
        }
    }
}

/// One schema version: everything that decides which rows a log becomes.
///
/// A version that was in use stays as it is: `versions/v<N>.toml`, one file each, read by [`SchemaVersion::parse`].
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaVersion {
    /// N of `stats_v<N>`.
    pub number: u32,
    pub width: WindowWidth,
    /// How long a window waits for stragglers.
    pub lateness_ms: i64,
    pub dimensions: Vec<Dimension>,
    pub measures: Vec<Measure>,
    /// Which [`Rules`] it pins.
    pub rules: u32,
    /// Values that a site, dimension and window leave; the rest is `(other)`.
    pub values_max: usize,
    /// What it calls some of its dimensions and measures.
    pub names: Names,
}

/// Why a schema version was refused, with its place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VersionError(String);

/// `visitors` is not a number that adds up: it is always there, and the file says so.
const VISITORS: &str = "visitors";

/// A window waits for stragglers at most this long; who needs more has late rows anyway.
const LATENESS_MAX_MS: i64 = 60 * 60 * 1000;

/// More values than this of one site, dimension and window are no statistics any more.
const VALUES_MAX_MAX: usize = 1_000_000;

/// The file as it is written; unknown keys are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    number: Spanned<u32>,
    #[serde(deserialize_with = "duration")]
    width: Spanned<i64>,
    #[serde(deserialize_with = "duration")]
    lateness: Spanned<i64>,
    dimensions: Vec<Spanned<String>>,
    measures: Spanned<Vec<Spanned<String>>>,
    rules: Spanned<u32>,
    values_max: Spanned<usize>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spanned<i64>, D::Error> {
    let text = Spanned::<String>::deserialize(deserializer)?;
    let duration: Duration = humantime::parse_duration(text.get_ref())
        .map_err(|error| D::Error::custom(format!("{:?} is no duration: {error} (like \"1m\")", text.get_ref())))?;
    let ms = i64::try_from(duration.as_millis()).map_err(|_| D::Error::custom("too long"))?;
    Ok(Spanned::new(text.span(), ms))
}

impl SchemaVersion {
    /// The versions that this binary carries, ascending.
    const BUILTIN: [(u32, &'static str); 2] =
        [(1, include_str!("../versions/v1.toml")), (2, include_str!("../versions/v2.toml"))];

    /// The file of a version that this binary carries.
    pub fn builtin_text(number: u32) -> Option<&'static str> {
        Self::BUILTIN.iter().find(|(known, _)| *known == number).map(|(_, text)| *text)
    }

    /// A version that this binary carries.
    pub fn builtin(number: u32) -> Option<SchemaVersion> {
        let text = Self::builtin_text(number)?;
        Some(Self::parse(text, &format!("v{number}.toml")).expect("tested: the versions in the binary are right"))
    }

    /// Reads and checks a version's file; `place` is what errors call it.
    pub fn parse(text: &str, place: &str) -> Result<SchemaVersion, VersionError> {
        let file: File = toml::from_str(text).map_err(|error| VersionError(format!("{place}: {error}")))?;
        let refuse = |span: Range<usize>, what: String| {
            let line = text[..span.start].matches('\n').count() + 1;
            Err(VersionError(format!("{place}:{line}: {what}")))
        };
        if *file.number.get_ref() == 0 {
            return refuse(file.number.span(), "number = 0 (versions count from 1)".to_owned());
        }
        let Some(width) = WindowWidth::new(*file.width.get_ref()) else {
            return refuse(
                file.width.span(),
                "a width must be whole seconds and divide a day (like \"1m\")".to_owned(),
            );
        };
        let lateness_ms = *file.lateness.get_ref();
        if lateness_ms % 1000 != 0 || lateness_ms > LATENESS_MAX_MS {
            return refuse(file.lateness.span(), "a lateness must be whole seconds, at most \"1h\"".to_owned());
        }
        let (mut dimensions, mut names) = (Vec::new(), Names::default());
        for entry in &file.dimensions {
            let (name, other) = Names::split(entry.get_ref());
            let dimension = match Dimension::ALL.into_iter().find(|dimension| dimension.name() == name) {
                Some(dimension) if dimensions.contains(&dimension) => {
                    return refuse(entry.span(), format!("dimension {name:?} is there twice"));
                }
                Some(dimension) => dimension,
                None => {
                    let known = Dimension::ALL.map(Dimension::name).join(", ");
                    return refuse(entry.span(), format!("unknown dimension {name:?} (known: {known})"));
                }
            };
            dimensions.push(dimension);
            if let Some(Err(why)) = other.map(|other| names.call(dimension.name(), other)) {
                return refuse(entry.span(), why);
            }
        }
        let (mut measures, mut visitors) = (Vec::new(), false);
        for entry in file.measures.get_ref() {
            let (name, other) = Names::split(entry.get_ref());
            match Measure::ALL.into_iter().find(|measure| measure.name() == name) {
                Some(measure) if !measures.contains(&measure) => {
                    measures.push(measure);
                    if let Some(Err(why)) = other.map(|other| names.call(measure.name(), other)) {
                        return refuse(entry.span(), why);
                    }
                }
                None if entry.get_ref() == VISITORS && !visitors => visitors = true,
                None if name != VISITORS => {
                    let known = Measure::ALL.map(Measure::name).join(", ");
                    return refuse(entry.span(), format!("unknown measure {name:?} (known: {VISITORS}, {known})"));
                }
                None if other.is_some() => {
                    return refuse(
                        entry.span(),
                        format!("{VISITORS} cannot be called otherwise: every version has it so"),
                    );
                }
                _ => return refuse(entry.span(), format!("measure {name:?} is there twice")),
            }
        }
        if !visitors || !measures.contains(&Measure::PageViews) {
            let what = "measures must have \"page_views\" and \"visitors\": the public views name them".to_owned();
            return refuse(file.measures.span(), what);
        }
        if Rules::version(*file.rules.get_ref()).is_none() {
            let what = format!("this binary does not carry rules version {}", file.rules.get_ref());
            return refuse(file.rules.span(), what);
        }
        let values_max = *file.values_max.get_ref();
        if values_max == 0 || values_max > VALUES_MAX_MAX {
            return refuse(file.values_max.span(), format!("values_max = {values_max} (1 to {VALUES_MAX_MAX})"));
        }
        Ok(SchemaVersion {
            number: *file.number.get_ref(),
            width,
            lateness_ms,
            dimensions,
            measures,
            rules: *file.rules.get_ref(),
            values_max,
            names,
        })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const V1: &str = SchemaVersion::BUILTIN[0].1;

    #[test]
    fn the_versions_in_the_binary_are_right_and_numbered_as_they_say() {
        for (number, _) in SchemaVersion::BUILTIN {
            assert_eq!(SchemaVersion::builtin(number).unwrap().number, number);
        }
        assert_eq!(SchemaVersion::builtin(1).unwrap().dimensions, Dimension::ALL);
        assert_eq!(SchemaVersion::builtin(1).unwrap().measures, Measure::ALL);
        assert_eq!(SchemaVersion::builtin(999), None);
    }

    #[test]
    fn version_2_is_version_1_with_newer_rules_and_more_lateness() {
        let version_1 = SchemaVersion::builtin(1).unwrap();
        let want = SchemaVersion { number: 2, lateness_ms: 30_000, rules: 2, ..version_1 };
        assert_eq!(SchemaVersion::builtin(2), Some(want));
    }

    #[test]
    fn a_version_may_call_dimensions_and_measures_otherwise() {
        let text =
            V1.replace("\"page\"", "\"page as path\"").replace("\"ad_clicks\"", "\"ad_clicks as sponsored_clicks\"");
        let version = SchemaVersion::parse(&text, "v9.toml").unwrap();
        let builtin = SchemaVersion::builtin(1).unwrap();
        assert_eq!((&version.dimensions, &version.measures), (&builtin.dimensions, &builtin.measures));
        assert_eq!((version.names.of(Dimension::Page), version.names.of(Dimension::EntryPage)), ("path", "entry_page"));
        assert_eq!(version.names.dimensions().collect::<Vec<_>>(), [(Dimension::Page, "path")]);
        assert_eq!(version.names.measures().collect::<Vec<_>>(), [(Measure::AdClicks, "sponsored_clicks")]);
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> =
            Dimension::ALL.map(Dimension::name).into_iter().chain(Measure::ALL.map(Measure::name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Dimension::ALL.len() + Measure::ALL.len());
    }

    fn check(old: &str, new: &str, want: Expect) {
        assert!(V1.contains(old), "{old}");
        let error = SchemaVersion::parse(&V1.replacen(old, new, 1), "v9.toml").unwrap_err();
        want.assert_eq(&error.to_string());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        check(
            "width = \"1m\"",
            "width = \"7s\"",
            expect![[r#"v9.toml:8: a width must be whole seconds and divide a day (like "1m")"#]],
        );
        check(
            "width = \"1m\"",
            "width = \"soon\"",
            expect![[r#"
            v9.toml: TOML parse error at line 8, column 9
              |
            8 | width = "soon"
              |         ^^^^^^
            "soon" is no duration: expected number at 0 (like "1m")
        "#]],
        );
        check(
            "lateness = \"10s\"",
            "lateness = \"10ms\"",
            expect![[r#"v9.toml:9: a lateness must be whole seconds, at most "1h""#]],
        );
        check(
            "\"page\",",
            "\"pages\",",
            expect![[
                r#"v9.toml:13: unknown dimension "pages" (known: site, page, entry_page, source, channel, referrer, search_term, country, browser, os, device, outbound, download, utm_source, utm_medium, utm_campaign, utm_term, utm_content, prop:*)"#
            ]],
        );
        check("\"page\",", "\"site\",", expect![[r#"v9.toml:13: dimension "site" is there twice"#]]);
        check(
            "\"ad_clicks\"",
            "\"clicks\"",
            expect![[
                r#"v9.toml:22: unknown measure "clicks" (known: visitors, page_views, outbound_clicks, ad_clicks, downloads, custom_events, bot_events)"#
            ]],
        );
        check(
            "\"visitors\", ",
            "",
            expect![[r#"v9.toml:22: measures must have "page_views" and "visitors": the public views name them"#]],
        );
        check("\"ad_clicks\"", "\"visitors\"", expect![[r#"v9.toml:22: measure "visitors" is there twice"#]]);
        check(
            "\"page\",",
            "\"page as Page\",",
            expect![[r#"v9.toml:13: "Page" is no name (small letters, digits and _, at most 40)"#]],
        );
        check("\"page\",", "\"page as os\",", expect!["v9.toml:13: the name os is taken"]);
        check(
            "\"site\",",
            "\"site as place\",",
            expect!["v9.toml:13: site cannot be called otherwise: every version has it so"],
        );
        check("\"ad_clicks\"", "\"ad_clicks as visitors\"", expect!["v9.toml:22: the name visitors is taken"]);
        check(
            "\"visitors\"",
            "\"visitors as people\"",
            expect!["v9.toml:22: visitors cannot be called otherwise: every version has it so"],
        );
        check("rules = 1", "rules = 77", expect!["v9.toml:25: this binary does not carry rules version 77"]);
        check("values_max = 1000", "values_max = 0", expect!["v9.toml:28: values_max = 0 (1 to 1000000)"]);
        check(
            "values_max = 1000",
            "",
            expect![[r#"
            v9.toml: TOML parse error at line 1, column 1
              |
            1 | # Schema version 1: what the table stats_v1 holds. A version that is in use is never edited: the next tweak is the next
              | ^
            missing field `values_max`
        "#]],
        );
        check(
            "rules = 1",
            "rules = 1\nspeed = 9",
            expect![[r#"
            v9.toml: TOML parse error at line 26, column 1
               |
            26 | speed = 9
               | ^^^^^
            unknown field `speed`, expected one of `number`, `width`, `lateness`, `dimensions`, `measures`, `rules`, `values_max`
        "#]],
        );
        check(
            "number = 1",
            "number = \"one\"",
            expect![[r#"
            v9.toml: TOML parse error at line 4, column 10
              |
            4 | number = "one"
              |          ^^^^^
            invalid type: string "one", expected u32
        "#]],
        );
    }
}
