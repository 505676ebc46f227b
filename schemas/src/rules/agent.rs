use aho_corasick::AhoCorasick;
use regex::{Captures, Regex, RegexSet};

use super::{Agent, text};

/// The list that tells bots, ready to match: literal patterns are one automaton, the rest one set.
#[derive(Debug)]
pub(super) struct Bots {
    literals: AhoCorasick,
    patterns: RegexSet,
}

/// The lists that name browsers, systems and devices, ready to match.
///
/// Most of a list never runs: of browsers and systems only those expressions whose required literals are in the agent.
#[derive(Debug)]
pub(super) struct Agents {
    browsers: Names,
    systems: Names,
    /// The first that is found counts.
    devices: Vec<(&'static str, Regex)>,
}

pub(super) fn of(bots: &Bots, agents: &Agents, user_agent: &str) -> Agent {
    let user_agent = user_agent.trim();
    // Access logs write "-" for a header that was not sent.
    if user_agent.is_empty() || user_agent == "-" {
        return Agent::default();
    }
    Agent {
        bot: bots.literals.is_match(user_agent) || bots.patterns.is_match(user_agent),
        browser: agents.browsers.find(user_agent),
        os: agents.systems.find(user_agent),
        device: agents.device(user_agent).to_owned(),
    }
}

impl Bots {
    pub(super) fn read(list: &'static str) -> Bots {
        let (literals, patterns): (Vec<_>, Vec<_>) =
            text::lines(list).map(|pattern| literal(pattern).ok_or(pattern)).partition(Result::is_ok);
        let literals = AhoCorasick::new(literals.into_iter().flatten()).expect("the list of bots fits an automaton");
        let patterns =
            RegexSet::new(patterns.into_iter().filter_map(Result::err)).expect("the list of bots is checked");
        Bots { literals, patterns }
    }
}

impl Agents {
    pub(super) fn read(browsers: &'static str, systems: &'static str, devices_list: &'static str) -> Agents {
        Agents { browsers: Names::read(browsers), systems: Names::read(systems), devices: devices(devices_list) }
    }

    fn device(&self, user_agent: &str) -> &'static str {
        self.devices.iter().find(|(_, pattern)| pattern.is_match(user_agent)).map_or("", |(device, _)| device)
    }
}

/// The string that the expression matches, if it matches just one.
fn literal(pattern: &str) -> Option<String> {
    let mut out = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.push(characters.next().filter(char::is_ascii_punctuation)?),
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            other => out.push(other),
        }
    }
    Some(out)
}

fn devices(list: &'static str) -> Vec<(&'static str, Regex)> {
    text::lines(list)
        .map(|line| {
            let (device, pattern) = line.split_once('\t').expect("a device, a tab, a pattern");
            (device, Regex::new(pattern).expect("the list of devices is checked"))
        })
        .collect()
}

/// Expressions in order, each with the name that it stands for.
struct Names {
    patterns: regex_filtered::Regexes,
    names: Vec<Name>,
}

enum Name {
    Fixed(&'static str),
    /// What the first group holds stands for `$1`.
    Template(&'static str),
}

impl Names {
    fn read(list: &'static str) -> Names {
        let mut patterns = regex_filtered::Builder::new_atom_len(3);
        let mut names = Vec::new();
        for line in text::lines(list) {
            let (pattern, name) = line.split_once('\t').expect("a pattern, a tab, a name");
            patterns = patterns.push(pattern).expect("the list is checked");
            names.push(match name {
                "" => Name::Template("$1"),
                name if name.contains("$1") => Name::Template(name),
                name => Name::Fixed(name),
            });
        }
        Names { patterns: patterns.build().expect("the list fits an automaton"), names }
    }

    /// The name of the first expression that is found; empty if none is, or for `Other`.
    fn find(&self, user_agent: &str) -> String {
        let Some((index, pattern)) = self.patterns.matching(user_agent).next() else { return String::new() };
        match self.names[index] {
            Name::Fixed("Other") => String::new(),
            Name::Fixed(name) => name.to_owned(),
            Name::Template(template) => {
                let found = pattern.captures(user_agent);
                text::value(&template.replace("$1", found.as_ref().and_then(first_group).unwrap_or_default()))
            }
        }
    }
}

fn first_group<'a>(captures: &Captures<'a>) -> Option<&'a str> {
    captures.get(1).map(|group| group.as_str())
}

impl std::fmt::Debug for Names {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Names({})", self.names.len())
    }
}
