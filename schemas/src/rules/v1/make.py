#!/usr/bin/env python3
"""Makes bots.txt, browsers.tsv and systems.tsv of a rules version from the public lists they come from.

    make.py CRAWLER_USER_AGENTS_FOLDER REGEXES_YAML OUT_FOLDER

Version 1 was made from npm crawler-user-agents 1.60.0 (MIT) and from uap-core 0.18.0 (Apache-2.0, as it lies in the
crate ua-parser 0.2.2). A version that is in use is never made again: a newer list is a newer version, in a folder of
its own.
"""

import json
import re
import sys

import yaml

# Patterns that also match people's browsers, and what stands for them instead ("" drops the pattern).
CHANGED = {
    r"AP3A\.240617\.008": "",  # the build number of Android 15 on many phones
    "MetaIAB Facebook": "",  # Facebook's in-app browser
    r"Code\/1\.": "",  # an editor's built-in browser
    r"Trae\/": "",  # the same
    "Fluid": "",  # a site in a window of its own
    r"mail\.ru": "",  # toolbars; the crawler is Mail.RU_Bot
    "Teoma": r"Ask Jeeves\/Teoma",  # TeomaBar is a toolbar
    "Butterfly": r"; Butterfly\/",  # HTC Butterfly is a phone
    "Sonic": r"(; |Rank)Sonic",  # ViewSonic makes tablets
    r"008\/": r"(^|[ (])008\/",  # the end of many version numbers
    "[wW]get": r"\b[wW]get\b",
    "Magellan": "^Magellan",
    "Adventurer": "^Adventurer",
    "Viber": "^Viber",
    "Trove": "^Trove",
    "Determ": "^Determ",
    "Disqus": "^Disqus",
    "Fever": r"^Fever\/",
    "Devin": r"Devin\/",
    "Charlotte": r"Charlotte\/",
    "Yeti": r"Yeti[\/-]",
    "ds9": "^ds9",
    "linko": r"linko\.app",
    "Goodreads": "compatible; Goodreads",
    "Blackboard": "Blackboard Safeassign",
    "NextCloud": "NextCloud-News",
    r"Valve\/Steam": r"Valve\/Steam HTTP Client",
    r"Asana\/": "WebsiteMetadataRetriever",
    r"Notion\/": r"^Notion\/",
    r"Tumblr\/": r"^Tumblr\/",
    r"Grammarly\/": r"^Grammarly\/",
    r"Instapaper\/": r"^Instapaper\/",
    r"PayPal\/": r"^PayPal\/",
    r"Make\/": r"^Make\/",
    r"Fetch\/": r"^Fetch\/",
    "CapitalOneShopping": "^CapitalOneShopping",
}

# What the list lacks: feed readers, HTTP libraries, tools, and marks that people's browsers do not carry.
OURS = r"""
(?i)(^|[^u])bots?\b
(?i)crawler
(?i)spider
(?i)\bfeed[ -]?(parser|fetcher|reader|finder|burner|validator|bin|demon|wrangler)
(?i)(^|[^a-z])rss
(?i)^feed
(?i)^newsblur
(?i)newsbeuter
(?i)newsfire
(?i)liferea
(?i)akregator
(?i)netnewswire
(?i)reeder
(?i)simplepie
(?i)magpierss
(?i)universalfeedparser
(?i)archiver
(?i)link ?checker
(?i)^(java|ruby|python|perl|php|lua|dart|node|deno|bun|julia|erlang|elixir)\b
(?i)libwww(-perl|/|ptr)
(?i)lwp::
(?i)libcurl
(?i)http[-_ ]?(client|lib|request|fetch|get|kit)
(?i)httpunit
(?i)urllib
(?i)wwwc\b
(?i)^w3c
(?i)^chef client
(?i)^apt-http
(?i)^debian apt
(?i)^dalvik/
(?i)cfnetwork/[0-9.]+ darwin/[0-9.]+( \(x86_64\).*)?$
(?i)^nsplayer
(?i)^lavf/
(?i)^vlc/
(?i)^gstreamer
(?i)microsoft[- ]webdav
(?i)^microsoft office
(?i)ms search
(?i)mail\.ru_bot
(?i)siteexplorer
(?i)webcollage
(?i)ezooms
(?i)phantomjs
(?i)^mozilla$
(?i)^mozilla/[0-9.]+$
^Mozilla/[0-9.]+ \(compatible;?\)$
\+ ?https?://
(?i)^([^mo]|m[^o]|o[^p]).*https?://
(?i)[a-z0-9]@[a-z0-9-]+\.[a-z]{2,4}\b
(?i)libfetch
(?i)portscout
(?i)validator
(?i)^irssi
(?i)google desktop
(?i)robosourcer
(?i)^https?://
(?i)^[a-z0-9._%+-]+@[a-z0-9-]+\.
""".strip().split("\n")


def bots(folder):
    version = json.load(open(f"{folder}/package.json"))["version"]
    yield f"# Patterns of bots: regular expressions, one a line; a user agent in which one is found is a bot.\n"
    yield f"# From npm crawler-user-agents {version} (MIT, Martin Monperrus and contributors), less the patterns that\n"
    yield f"# match people's browsers, more feed readers and HTTP libraries: see make.py. Never changed, only followed by v2.\n"
    seen = set()
    listed = [CHANGED.get(e["pattern"], e["pattern"]) for e in json.load(open(f"{folder}/crawler-user-agents.json"))]
    for pattern in listed + OURS:
        if pattern and pattern not in seen:
            seen.add(pattern)
            yield plain(pattern) + "\n"


def plain(pattern):
    """The same expression with every slash as it is, and word boundaries of ASCII, which cost an automaton less."""
    return pattern.replace(r"\/", "/").replace(r"\b", r"(?-u:\b)")


def table(yaml_path, section, name_key, title):
    yield f"# {title}: a regular expression, a tab, the name. The first that is found counts. `$1` in a name, or no\n"
    yield "# name, is what its first group holds. From uap-core 0.18.0 (Apache-2.0, Google Inc. and contributors), without\n"
    yield "# the versions: see make.py. Never changed, only followed by v2.\n"
    for entry in yaml.safe_load(open(yaml_path))[section]:
        flag = "(?i)" if entry.get("regex_flag") == "i" else ""
        yield flag + ascii_classes(entry["regex"]) + "\t" + (entry.get(name_key) or "") + "\n"


def ascii_classes(regex):
    """`.{0,200}` as `.*` and `\\d` as `[0-9]`: the same for real agents, and far smaller as automata."""
    regex = re.sub(r"\{0,\d{3,}\}", "*", regex)
    regex = re.sub(r"\{1,\d{3,}\}", "+", regex)
    out, at = [], 0
    while at < len(regex):
        two = regex[at : at + 2]
        if two in ("\\d", "\\w", "\\/"):
            out.append({"\\d": "[0-9]", "\\w": "[A-Za-z0-9_]", "\\/": "/"}[two])
            at += 2
        elif two[0] == "\\":
            out.append(two)
            at += 2
        else:
            out.append(two[0])
            at += 1
    return "".join(out)


if __name__ == "__main__":
    crawlers, regexes, out = sys.argv[1:]
    open(f"{out}/bots.txt", "w").writelines(bots(crawlers))
    browsers = table(regexes, "user_agent_parsers", "family_replacement", "Names of browsers")
    open(f"{out}/browsers.tsv", "w").writelines(browsers)
    systems = table(regexes, "os_parsers", "os_replacement", "Names of operating systems")
    open(f"{out}/systems.tsv", "w").writelines(systems)
