//! The generations that have runs, with their versions as they are read.

use anyhow::Context;
use weir_pipeline::{Rule, Seam};
use weir_schemas::{Conversion, Number, SchemaVersion, WindowWidth, World};

use crate::config::Config;

/// What a run needs to know of the generation that it writes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Generation {
    pub number: Number,
    pub version: SchemaVersion,
    /// The version's file, as a conversion has recorded it; `None`: as it is configured, for none has begun.
    pub text: Option<String>,
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
            let text = world.generations.first().map(str::to_owned);
            let version = match &text {
                Some(text) => SchemaVersion::parse(text, "the version of the first generation")?,
                None => config.schema_version()?,
            };
            return Ok(Generation { number, version, text, from_ms: None, carried: None, seam: None });
        };
        let made = world.generations.made(number).with_context(|| format!("there is no generation {wanted}"))?;
        let version = SchemaVersion::parse(&made.version, &format!("the version of generation {wanted}"))?;
        let carried = made.carried.map(|carried| CarriedOver { old: made.old, from_ms: carried.from_ms });
        let (text, from_ms, seam) = (Some(made.version.clone()), Some(made.from_ms), seam(world, made, version.width)?);
        Ok(Generation { number, version, text, from_ms, carried, seam })
    }

    /// Why the configured version is not used, if it is not.
    ///
    /// Law: once a conversion has begun, what is configured changes no table, and makes none.
    pub(crate) fn not_configured(config: &Config, world: &World) -> anyhow::Result<Option<String>> {
        let (first, configured) = (Generation::of(config, world, None)?.version, config.schema_version()?);
        Ok((first != configured).then(|| {
            format!(
                "the configured schema version {} is not used: a conversion has begun, and the first generation is still what it \
                 was then, version {} (leave `schema` in the configuration as it was; `weir migrate` makes another generation)",
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
