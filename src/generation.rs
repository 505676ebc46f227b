//! The generations that have runs, with their versions as they are read.

use anyhow::{Context, ensure};
use weir_pipeline::{Rule, Seam};
use weir_schemas::{Conversion, Number, SchemaVersion, WindowWidth, World};

use crate::config::Config;

/// What a run needs to know of the generation that it writes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Generation {
    pub number: Number,
    pub version: SchemaVersion,
    /// The version's file.
    pub text: String,
    /// The first window that its runs compute, ms since the Unix epoch; `None`: that of the log.
    pub from_ms: Option<i64>,
    /// The rows before that, if they are another generation's.
    pub carried: Option<CarriedOver>,
    /// Where both meet.
    pub seam: Option<Seam>,
}

/// Rows that were, or are still to be, carried over from another generation's table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CarriedOver {
    pub old: Number,
    /// The first window, ms since the Unix epoch.
    pub from_ms: i64,
}

impl Generation {
    /// Errors: there is none of this number, or this binary does not carry the rules that its version pins.
    pub(crate) fn of(config: &Config, world: &World, number: Number) -> anyhow::Result<Generation> {
        let Some(wanted) = number else {
            let text = match &world.generations.first {
                Some(text) => text.clone(),
                None => config.schema_text()?,
            };
            let version = SchemaVersion::parse(&text, "the version of the first generation")?;
            ensure!(
                world.generations.made(Some(version.number)).is_none(),
                "the configured schema version is {}, which a conversion has made: configure the first generation's, as it was",
                version.number
            );
            return Ok(Generation { number, version, text, from_ms: None, carried: None, seam: None });
        };
        let made = world.generations.made(number).with_context(|| format!("there is no generation {wanted}"))?;
        let version = SchemaVersion::parse(&made.version, &format!("the version of generation {wanted}"))?;
        let carried = made.carried.map(|carried| CarriedOver { old: made.old, from_ms: carried.from_ms });
        let (text, from_ms, seam) = (made.version.clone(), Some(made.from_ms), seam(world, made, version.width)?);
        Ok(Generation { number, version, text, from_ms, carried, seam })
    }

    /// Why the configured version is not used, if it is not.
    ///
    /// Law: after the first start what is configured changes no table, and makes none.
    pub(crate) fn not_configured(config: &Config, world: &World) -> anyhow::Result<Option<String>> {
        let (first, configured) = (Generation::of(config, world, None)?.version, config.schema_version()?);
        let edited = if configured.number == first.number { ", as its file was then" } else { "" };
        Ok((first != configured).then(|| {
            format!(
                "the configured schema version {} is not used: at the first start it was version {}{edited}, and that is what the \
                 first generation stays (leave `schema` in the configuration as it was; `weir migrate` makes another generation)",
                configured.number, first.number
            )
        }))
    }

    /// All that have runs, the one in use first.
    pub(crate) fn alive(config: &Config, world: &World) -> anyhow::Result<Vec<Generation>> {
        let in_use = world.generations.in_use();
        let others = world.generations.alive().into_iter().filter(|number| *number != in_use);
        [in_use].into_iter().chain(others).map(|number| Generation::of(config, world, number)).collect()
    }

    /// As people call it.
    pub(crate) fn name(&self) -> String {
        format!("generation {}", self.version.number)
    }

    /// The one that the public views show.
    pub(crate) fn in_use(config: &Config, world: &World) -> anyhow::Result<Generation> {
        Generation::of(config, world, world.generations.in_use())
    }
}

/// Where a generation's own windows, of this width, meet those that it was given; the old one may have been given some, too.
fn seam(world: &World, made: &Conversion, width: WindowWidth) -> anyhow::Result<Option<Seam>> {
    let Some(carried) = made.carried else { return Ok(None) };
    let old_width = WindowWidth::new(carried.width_ms);
    let old_width = old_width.with_context(|| format!("{} ms is no width of windows", carried.width_ms))?;
    let older = match world.generations.made(made.old) {
        Some(old) => seam(world, old, old_width)?,
        None => None,
    };
    let old = Rule { width: old_width, lateness_ms: carried.lateness_ms, seam: older.map(Box::new) };
    Ok(Some(Seam { at: width.window_of(made.from_ms), old }))
}
