//! Page views of an access log by day and page, as awk finds them: no code of ours but the list of bots.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use weir_schemas::rules::Rules;

/// `BOTS` is a file of the user agents that are bots.
const AWK: &str = r#"
    BEGIN { FS = "\"" ; while ((getline agent < BOTS) > 0) bot[agent] = 1 }
    {
        split($2, request, " "); split($3, answer, " "); split($1, begin, "[[/:]")
        page = request[2]; sub(/[?#].*/, "", page)
        name = tolower(page); sub(/.*\//, "", name)
    }
    request[1] != "GET" || answer[1] !~ /^(2..|304)$/ || $6 in bot || name == "robots.txt" { next }
    name ~ /\.(gif|jpg|jpeg|png|bmp|ico|svg|ttf|woff|css|js|xml|xsl|json)$/ { next }
    name ~ /\.(pdf|doc|zip|gz|tgz|bz2|exe|deb|rpm|jar|mp3|tar|csv|iso)$/ { next }
    { days[begin[4] "-" begin[3] "-" begin[2]]++; pages[page]++ }
    END { for (day in days) print "day", day, days[day]; for (page in pages) print "page", page, pages[page] }
"#;

/// Page views by day (`2015-05-17`) and by page.
pub(crate) fn page_views(log: &Path) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let text = fs::read_to_string(log).unwrap();
    let agents: BTreeSet<&str> = text.lines().filter_map(|line| line.split('"').nth(5)).collect();
    let rules = Rules::version(1).unwrap();
    let bots: Vec<&str> = agents.into_iter().filter(|agent| rules.agent(agent).bot).collect();
    assert!(bots.len() > 10);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bots");
    fs::write(&file, bots.join("\n") + "\n").unwrap();
    let found = Command::new("awk").args(["-v", &format!("BOTS={}", file.display()), AWK]).arg(log).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let (mut days, mut pages) = (BTreeMap::new(), BTreeMap::new());
    for line in String::from_utf8(found.stdout).unwrap().lines() {
        let [what, name, count] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let into = if what == "day" { &mut days } else { &mut pages };
        into.insert(name.replace("-May-", "-05-"), count.parse().unwrap());
    }
    (days, pages)
}
