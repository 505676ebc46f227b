//! The generations that have runs, with their versions as they are read.

use anyhow::{Context, ensure};
use weir_schemas::{Number, SchemaVersion, World};

use crate::config::Config;

/// What a run needs to know of the generation that it writes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Generation {
    pub number: Number,
    pub version: SchemaVersion,
    /// The version's file, as the conversion that has made the generation has it; `None`: as it is configured.
    pub text: Option<String>,
    /// Its first window, ms since the Unix epoch; `None`: that of the log.
    pub from_ms: Option<i64>,
}

impl Generation {
    /// Errors: there is none of this number, or this binary does not carry the rules that its version pins.
    pub(crate) fn of(config: &Config, world: &World, number: Number) -> anyhow::Result<Generation> {
        let Some(wanted) = number else {
            let version = config.schema_version()?;
            ensure!(
                world.generations.made(Some(version.number)).is_none(),
                "the configured schema version is {}, which a conversion has made: leave the configuration as it was, it names the \
                 first generation",
                version.number
            );
            return Ok(Generation { number, version, text: None, from_ms: None });
        };
        let made = world.generations.made(number).with_context(|| format!("there is no generation {wanted}"))?;
        let version = SchemaVersion::parse(&made.version, &format!("the version of generation {wanted}"))?;
        Ok(Generation { number, version, text: Some(made.version.clone()), from_ms: Some(made.from_ms) })
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
