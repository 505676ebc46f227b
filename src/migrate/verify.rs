//! Both generations are compared, and what came of it is said, and recorded.

use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use weir_log::{Clock, SystemClock};
use weir_schemas::{Comparable, Comparing, Conversion, Dimension, Region, World, control::Action};
use weir_sink::{
    agree::{Agreed, DIFFERENCES_MAX, Expected, Pair, Sides, Why, agree},
    audit::Audit,
};

use super::{
    Migrate, Part,
    pace::{Attempt, Pace},
    swap,
};
use crate::{digest::date, fault::Step, generation::Generation, judge::at};

impl Migrate {
    /// Exit code 1 when something differs that must not.
    pub(super) async fn verify(&self) -> anyhow::Result<ExitCode> {
        let now_ms = SystemClock.now_ms();
        let world = self.world().await?;
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
        let begun = cut(&conversion, &world, now_ms);
        let (attempt, known) = begun.map_or((now_ms, world.control.len()), |begun| (begun.attempt, begun.known));
        let to_ms = olds[0].through_ms.min(news[0].through_ms);
        let to_ms = begun.map_or(to_ms, |begun| begun.closed_ms.min(to_ms));
        let comparable = Comparable::of(&old.version, &new.version);
        let from_ms = conversion.carried.map_or(conversion.from_ms, |carried| carried.from_ms);
        let region = comparable.region(from_ms, to_ms);
        let region = region.with_context(|| {
            format!(
                "generation {} has nothing yet that could be compared: it is complete through {}",
                conversion.generation,
                at(to_ms)
            )
        })?;
        let mut all: Vec<(String, Option<Region>)> = vec![(String::new(), Some(region))];
        if let Some(carried) = olds.iter().chain(&news).find(|part| part.order.old.is_some() && !part.is_done()) {
            bail!("{} is not done yet (`weir migrate status`)", world.roles.role(&carried.order.run));
        }
        let imports = |parts| Vec::<Part>::into_iter(parts).filter(|part| part.order.import);
        for (old, new) in imports(olds).zip(imports(news)) {
            ensure!(
                old.is_done() && new.is_done(),
                "import {} is not counted yet in both generations (`weir migrate status`)",
                old.order.origin
            );
            all.push((old.order.origin.clone(), None));
        }
        if begun.is_some() {
            println!("goes on with the comparison of {}, which was cut", at(attempt));
        }
        let (from, before, closed) = (at(region.from.ms()), at(region.before.ms()), at(region.closed.ms()));
        println!("compares the windows that were closed by {closed}: from {from} to {before}");
        let mut differing = 0;
        for version in [&old.version, &new.version] {
            let found = Audit::new(&self.target, version).full().await?;
            for finding in found.iter().take(DIFFERENCES_MAX) {
                println!("DIFFERS: generation {} is not what its runs have recorded: {finding}", version.number);
            }
            let more = found.len() - found.len().min(DIFFERENCES_MAX);
            if more > 0 {
                println!("  and {more} more");
            }
            differing += found.len() as u64;
        }
        let of = Attempt { conversion: conversion.by.id, attempt, closed_ms: region.closed.ms(), known };
        for (origin, region) in all {
            let agreed = begun.and_then(|begun| begun.agreed.get(&origin)).copied();
            if agreed == Some(None) {
                println!("{}: was compared, and agrees", called(&origin));
                continue;
            }
            let accepted = conversion.accepted.iter().map(|(dimension, _)| dimension.clone()).collect();
            let (old, new) = (old.version.clone(), new.version.clone());
            let (target, from_day) = (self.target.clone(), agreed.flatten());
            let pair = Pair { target, old, new, origin, region, accepted, from_day };
            let pace = Pace::new(self, &world, of, &pair.origin);
            let agreed = agree(&pair, |progress| pace.wait(progress)).await?;
            let what = called(&pair.origin);
            ensure!(
                agreed.compared.sums > 0,
                "of {what} nothing could be compared: no rows, or nothing that must be equal (`weir migrate plan` says what must)"
            );
            differing += agreed.differing_count;
            println!("{}", text(&pair, &agreed));
            if agreed.differing_count == 0 {
                pace.keep(None).await;
                Step::Compared.done();
            }
        }
        // What came while it was compared may not have been.
        let now = self.world().await?;
        if let Some(changed) = swap::changed(&now.control[known..]) {
            bail!("meanwhile {changed}: what was compared is not what is there now (`weir migrate verify` again)");
        }
        let closed_ms = region.closed.ms();
        self.say("", Action::Verified { id: conversion.by.id, attempt, closed_ms, differing, known }).await?;
        Step::Verified.done();
        println!("{}", ended(differing, now.generations.in_use() == number));
        Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// The comparison that was cut, unless it is too long ago, or something has changed a table since.
fn cut<'a>(conversion: &'a Conversion, world: &World, now_ms: i64) -> Option<&'a Comparing> {
    let begun = conversion.comparing.as_ref()?;
    let is_fresh = now_ms - begun.at_ms <= swap::FRESH_MS && swap::changed(&world.control[begun.known..]).is_none();
    is_fresh.then_some(begun)
}

/// What a comparison came to, and what now. `is_shown`: the new one is, already.
fn ended(differing: u64, is_shown: bool) -> String {
    match (differing, is_shown) {
        (0, false) => "both generations agree (`weir migrate swap` shows the new one)".to_owned(),
        (0, true) => "both generations agree (the new one is shown already)".to_owned(),
        (many, false) => {
            format!("{many} DIFFER: nothing is shown before they agree, or are accepted (`weir migrate accept`)")
        }
        (many, true) => {
            format!("{many} DIFFER, and the new one is shown already (`weir migrate revert` shows the old one again)")
        }
    }
}

fn called(origin: &str) -> String {
    if origin.is_empty() { "live".to_owned() } else { format!("import {origin}") }
}

fn text(pair: &Pair, agreed: &Agreed) -> String {
    let mut of = called(&pair.origin);
    if let Some(day) = pair.from_day {
        of += &format!(", from {} on", date(day));
    }
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
    let why = agreed.why_measures();
    for (measure, Sides { old, new }) in &agreed.measures {
        lines.push(format!("  may differ: {measure}, {old} in all and {new} ({why})"));
    }
    for difference in &agreed.differing {
        lines.push(format!("  DIFFERS: {difference}"));
    }
    let more = agreed.differing_count - agreed.differing.len().min(agreed.differing_count as usize) as u64;
    lines.extend((more > 0).then(|| format!("  and {more} more")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_already_is_not_said_to_be_shown_by_a_swap() {
        assert!(ended(0, false).contains("`weir migrate swap`") && ended(3, false).contains("nothing is shown"));
        assert_eq!(ended(0, true), "both generations agree (the new one is shown already)");
        let differs = ended(3, true);
        assert!(differs.starts_with("3 DIFFER") && !differs.contains("nothing is shown"), "{differs}");
    }
}
