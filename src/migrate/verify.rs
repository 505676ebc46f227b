//! Both generations are compared, and what came of it is said, and recorded.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use weir_log::{Clock, SystemClock};
use weir_schemas::{
    Comparable, Conversion, Dimension, Hold, Region, SHADOW, UNHINDERED_PERMILLE, World, control::Action,
};
use weir_sink::{
    agree::{Agreed, Expected, Pair, Progress, Why, agree},
    audit::Audit,
};

use super::{Migrate, swap};
use crate::{fault::Step, generation::Generation, judge::at};

/// How often it is said how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);

impl Migrate {
    /// Exit code 1 when something differs that must not.
    pub(super) async fn verify(&self) -> anyhow::Result<ExitCode> {
        let attempt = SystemClock.now_ms();
        let world = self.world().await?;
        let known = world.control.len();
        let conversion = world.generations.under_way().cloned();
        let conversion = conversion.context("no conversion is under way: there is nothing to compare")?;
        let number = Some(conversion.generation);
        let old = Generation::of(&self.config, &world, conversion.old)?;
        let new = Generation::of(&self.config, &world, number)?;
        let in_use = Generation::in_use(&self.config, &world)?;
        ensure!(
            weir_sink::gaps(&self.target, &in_use.version).await?.is_empty(),
            "live has left something that is not filled yet: both are compared when it is (`weir status`)"
        );
        let (olds, news) = (self.parts(&world, conversion.old).await?, self.parts(&world, number).await?);
        let to_ms = olds[0].through_ms.min(news[0].through_ms);
        let comparable = Comparable::of(&old.version, &new.version);
        let region = comparable.region(conversion.from_ms, to_ms);
        let region = region.with_context(|| {
            format!(
                "generation {} has nothing yet that could be compared: it is complete through {}",
                conversion.generation,
                at(to_ms)
            )
        })?;
        let mut all: Vec<(String, Option<Region>)> = vec![(String::new(), Some(region))];
        for (old, new) in olds.iter().zip(&news).skip(1) {
            ensure!(
                old.is_done() && new.is_done(),
                "import {} is not counted yet in both generations (`weir migrate status`)",
                old.order.origin
            );
            all.push((old.order.origin.clone(), None));
        }
        println!("compares all rows that left before {}, from {} on", at(region.closed.ms()), at(region.from.ms()));
        let mut differing = 0;
        for version in [&old.version, &new.version] {
            let found = Audit::new(&self.target, version).full().await?;
            for finding in &found {
                println!("DIFFERS: generation {} is not what its runs have recorded: {finding:?}", version.number);
            }
            differing += found.len() as u64;
        }
        for (origin, region) in all {
            let accepted = conversion.accepted.iter().map(|(dimension, _)| dimension.clone()).collect();
            let (old, new) = (old.version.clone(), new.version.clone());
            let pair = Pair { target: self.target.clone(), old, new, origin, region, accepted };
            let agreed = self.compare(&world, &pair).await?;
            let of = called(&pair.origin);
            ensure!(
                agreed.compared.sums > 0,
                "of {of} nothing could be compared: no rows, or nothing that must be equal (`weir migrate plan` says what must)"
            );
            differing += agreed.differing_count;
            println!("{}", text(&pair.origin, &agreed));
        }
        // What came while it was compared may not have been.
        let now = self.world().await?.control;
        if let Some(changed) = swap::changed(&now[known..]) {
            bail!("meanwhile {changed}: what was compared is not what is there now (`weir migrate verify` again)");
        }
        let closed_ms = region.closed.ms();
        self.say("", Action::Verified { id: conversion.by.id, attempt, closed_ms, differing }).await?;
        Step::Verified.done();
        match differing {
            0 => println!("both generations agree (`weir migrate swap` shows the new one)"),
            many => {
                println!("{many} DIFFER: nothing is shown before they agree, or are accepted (`weir migrate accept`)")
            }
        }
        Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// As fast as the shadow's runs may work.
    async fn compare(&self, world: &World, pair: &Pair) -> anyhow::Result<Agreed> {
        let share = f64::from(Hold::of(SHADOW, &world.control).permille) / f64::from(UNHINDERED_PERMILLE);
        let (mut ended, mut said) = (None::<Instant>, Instant::now());
        let pace = move |progress: Progress| {
            let rests = ended.map_or(Duration::ZERO, |ended| ended.elapsed().mul_f64((1.0 - share) / share.max(1e-3)));
            ended = Some(Instant::now() + rests);
            if said.elapsed() >= SAY_EVERY && progress.of_rows > 0 {
                said = Instant::now();
                eprintln!("{} % of the rows are compared", 100 * progress.rows / progress.of_rows);
            }
            tokio::time::sleep(rests)
        };
        Ok(agree(pair, pace).await?)
    }

    pub(super) async fn accept(&self, dimension: &str, reason: &str) -> anyhow::Result<ExitCode> {
        let world = self.world().await?;
        let conversion = world.generations.under_way();
        let Conversion { by, .. } = conversion.context("no conversion is under way: there is nothing to accept")?;
        if !Dimension::ALL.iter().any(|known| known.name() == dimension) && !dimension.starts_with("prop:") {
            let known = Dimension::ALL.map(Dimension::name).join(", ");
            bail!("there is no dimension {dimension} (known: {known})");
        }
        self.say(reason, Action::DifferenceAccepted { id: by.id, dimension: dimension.to_owned() }).await?;
        println!("accepted: {dimension} need not agree (`weir migrate verify` compares the rest)");
        Ok(ExitCode::SUCCESS)
    }
}

fn called(origin: &str) -> String {
    if origin.is_empty() { "live".to_owned() } else { format!("import {origin}") }
}

fn text(origin: &str, agreed: &Agreed) -> String {
    let of = called(origin);
    let compared = &agreed.compared;
    let mut lines = vec![format!(
        "{of}: {} rows of the old, {} of the new; {} sites, {} days, {} sums and {} values compared",
        compared.rows.old, compared.rows.new, compared.sites, compared.days, compared.sums, compared.values
    )];
    if compared.with_other > 0 {
        lines.push(format!(
            "  {} sites, dimensions and days by their sums alone: some values are (other)",
            compared.with_other
        ));
    }
    for Expected { dimension, why, groups, values, .. } in &agreed.expected {
        let why = match why {
            Why::OnlyOld => "only the old version has it",
            Why::OnlyNew => "only the new version has it",
            Why::Values | Why::Lists => "its lists differ",
            Why::Accepted => "accepted",
        };
        lines.push(format!("  may differ: {dimension}, in {groups} sites and days, {values} values ({why})"));
    }
    for difference in &agreed.differing {
        lines.push(format!("  DIFFERS: {difference}"));
    }
    let more = agreed.differing_count - agreed.differing.len().min(agreed.differing_count as usize) as u64;
    lines.extend((more > 0).then(|| format!("  and {more} more")));
    lines.join("\n")
}
