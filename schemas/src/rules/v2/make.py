#!/usr/bin/env python3
"""Makes bots.txt of rules version 2.

    make.py CRAWLER_USER_AGENTS_FOLDER VERSION_OF_THEIRS OUT_FOLDER

It was made from PyPI crawler-user-agents 1.67.0 (MIT; its licence is v1/LICENSE-crawler-user-agents), with what
v1/make.py changes and adds, and what stands here. A version that is in use is never made again.
"""

import importlib.util
import json
import pathlib
import sys

spec = importlib.util.spec_from_file_location("v1", pathlib.Path(__file__).parent.parent / "v1" / "make.py")
v1 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(v1)

# Patterns of version 1 that also match people's browsers, and what stands for them instead ("" drops the pattern).
CHANGED = {
    "Sogou": "",  # Sogou's browser; its crawlers are spiders
    "coccoc": "",  # Coc Coc's browser; its crawlers are bots
    "Expanse": "^Expanse",  # a phone
    "Chirp|gotosocial": "^(Chirp|gotosocial)",  # a word that phones may have
    "(?i)(^|[^u])bots?\\b": r"(?i)(^|[^u ])bots?\b",  # `M bot 54`, `POWER BOT` are phones; below are those with a space
    "(?i)spider": "(?i)(^|[a-z0-9_./-]|[a-z,-] )spider|spider[/;)_-]",  # Spider 8 is a phone
    "(?i)(^|[^a-z])rss": "(?i)(^|[^a-z0-9])rss",  # `Build/S1RSS32.38` is on many Motorola phones
    "(?i)reeder": "^Reeder/",  # Reeder makes phones
}

# What version 1 does not know, or only with another capital.
OURS = r"""
(?i)\bbots?[/;@+]
(?i)(^| )bots?$
(?i)compatible[;,][^()]* bots?\b
^coccoc
(?i)^[^()]* bots?\b
^Mozilla/5\.0 \(compatible; [A-Za-z][A-Za-z0-9._-]*(/v?[0-9.]+)?\)$
(?i)Meta-(ExternalAgent|ExternalFetcher|ExternalAds|WebIndexer)
(?i)FacebookCatalog
(?i)mediapartners-google
^whatsapp/
\b(ChatGPT|Claude|Perplexity|MistralAI|Manus|Amzn|Shap|Tavily|Qwen|Kimi|Doubao|DeepSeek|Grok|Gemini|Copilot|IsonAI|Exa|You)-User\b
(?i)ChatGPT[ -](Agent|Operator)
(?i)^OpenAI/
(?i)^claude-(code|cli)
(?i)^codex[_-]
(?i)^gemini-?cli
(?i)^GithubCopilot
(?i)^(cursor|windsurf|opencode|aider|cline|zed)/
(?i)^(langchain|llama_?index|crewai|autogpt|browser-use|haystack)
(?i)^(jina|jinareader|firecrawl|tavily|exa|scrapingbee|zenrows|browserless|browserbase|apify|zyte)\b
(?i)^(modelcontextprotocol|mcp)[/-]
\bNovaAct\b
(?i)xAI-(Grok|SearchBot|Web)
(?i)Grok-DeepSearch
Google-(GeminiNotebook|Pinpoint|CWS|Firebase|Cloud-Scheduler|Cloud-Tasks|AMPHTML|adstxt|Lens|speakr|ilp|Youtube-Links|Assess|HTTP-Java-Client)
Google-(Ads|Adwords|Business|Hotel|Sites|Publisher-Plugin|Transparency)
\bGoogleAgent-
^Google(HC|Messages|Prober|Sites)\b
(?i)[ (;]GoogleMessages/
GoogleAdSenseInfeed
Google Search Console
(?i)Google Page ?Speed
google_partner_monitoring
(?i)DuplexWeb-Google
(?i)googleweblight
(?i)amazon-(kendra|qbusiness)
Lightpanda
(?i)LAIONDownloader
(?i)crawl4ai
^(Crawlspace|AIWebIndex|AgentTimes|YaK|barkrowler)\b
(?i)Webzio-Extended
Yandex(Additional|Blogs|Calendar|Direct|Favicons|Images|Market|Media|Metrika|Video|Webmaster)/
YaDirectFetcher
(?i)^guzzle
(?i)^(undici|got|ky|needle|superagent|request-promise|request\.js|node-fetch|jsdom)\b
\bjsdom/
(?i)^(niquests|grequests|httpcore|urlgrabber|boto3|azsdk-)
(?i)^(reqwest|hyper|hyper-util|ureq|isahc|surf|attohttpc|httprs)/
(?i)^(ktor|feign|sttp|scalaj-http|akka-http|pekko-http|http4s|reactornetty|unirest|vert\.x|jaunt|restsharp|refit|flurl)\b
(?i)^apache-httpasync
(?i)^(faraday|rest-client|rest::client|http\.rb|httparty|excon|hackney|mint|httpoison)\b
^req/[0-9]
(?i)^(symfony|reactphp|slim framework|cakephp)\b
(?i)^(fasthttp|resty-requests|quic-go|go [0-9.]+ package http|imroc/req)
(?i)^grpc-
\(std\.http\)$
\bAlamofire/
(?i)WindowsPowerShell/
\bPowerShell/[0-9]
(?i)^winhttp
^Microsoft(-CryptoAPI| BITS|-Delivery-Optimization|-WNS|Teams-Preview)
^Windows-Update-Agent
(?i)^(postmanruntime|insomnia|bruno-runtime|vscode-restclient|reqbin|xh/|httpie)
(?i)^(aria2|axel|rclone|wget2|uclient-fetch|lwp[-/]|lwp network|libredtail|git/|libdnf|cygwin-setup)
(?i)^(yt-dlp|youtube-dl|ffmpeg|libsoup)
(?i)^(buildkit|buildah|skopeo|containerd|containers/|cri-o|helm/|go-containerregistry|harbor-)
(?i)^kube-probe
^ELB-HealthChecker
(?i)^(gatus|statping|freshping|prometheus|grafana|telegraf|collectd|monit|munin|icinga|zabbix|xymon|hobbit)\b
(?i)Blackbox-Exporter
(?i)Datadog[ /]?Synthetics
(?i)(Dynatrace|Splunk |New ?Relic ?|Ruxit)Synthetic
\bSyntheticsAgent/
GomezAgent
DejaClick/
YottaaMonitor
(?i)^(pulsetic|ohdear|sentry/|hexometer|uptime)
(?i)^Azure Traffic Manager
^(AlwaysOn|ReadyForRequest|ApplicationHealthService)\b
(?i)health-?check
^Envoy/HC
^(Consul Health|HAProxy|Varnish|Traefik)
(?i)^(grafana k6|vegeta|hey/|apachebench|ab/[0-9]|siege/|wrk/|apache-jmeter|jmeter|locust|gatling|oha/|bombardier|autocannon)
(?i)Headless(Edg|Firefox|Browser|Shell)
SlimerJS
\bCypress/
\bPercy/
(?i)\b(DebugBear|SpeedCurve|pageburst|iplabel|pa11y)\b
CloudflareObservatory/
(?i)^cloudflare-
CloudflareDiagnostics
^Cloudflare Custom
(?i)^vercel[ -]
^Netlify\b
(?i)(^|\()(Misskey|Akkoma|PeerTube|Pixelfed|Friendica|Mobilizon|Lemmy|Castopod)[ /]
(?i)(uri|url|link)[ -]?preview
^Nextcloud-News
^Nuclei\b
^Fuzz Faster
(?i)^(gobuster|feroxbuster|arachni|l9tcpid|l9explore|octopus |0xabyssal)
^Hello,? [wW]orld
Mozilla/5\.0 (Jorgee|Keydrop|OnlyScans|xtate|infrawatch|project_)
(?i)(scan|proxy|domain|header|redirect|seo|web)[ -]?(checker|scanner|scraper)
(?i)-scanner\b
(?i)-scraper\b
(?i)(^|[ ;(])scanner\.
\bAssetnote/
burpcollaborator
\$\{jndi:
(?i)^wappalyzer
(?i)WhatCMS/
(?i)^(builtwith|sitebulb|contentking|lumar|seobility|seopult)
Morningscore
\bTagInspector/
(?i)\bprospectingstudio
Sparkler/
Mixnode
(?i)baidu transcoder
^Apple-PubSub
^iTMS$
^AppleCoreMedia/
^Podcasts/
^(Castro 2|AntennaPod|Downcast|PocketCasts|Pocket Casts|Overcast|Podkicker|Castbox|gPodder)
^(Spotify|Inoreader|Readwise|Omnivore|Wallabag|Raindrop)
^QuiteRSS
^azure-(logic-apps|data-factory)
^IFTTT
(?i)^(n8n|pipedream|power automate|airtable)
^GitHub-Hookshot
^(GitLab|Jenkins|TeamCity|Renovate|Artifactory)/
^Discourse/
(?i)^bitrix
(?i)^thumbor
ImageProxy/
(?i)EmailProxy/
mail\.ukr\.net proxy
^ClamAV
^(COMODO|Sectigo) 
^acme\.
(?i)^(barracuda|proofpoint|mimecast)
^Prerender
(?i)shopify-partner
^[<&{;]
(?i)^javascript:
^aws-(sdk|internal)
(?i)^ddg_android
(?i)^(gvfs|svn|transmission|jnlp|getright|igetter)/
^GoogleAuth
^phpMyAdmin
^Go [0-9]
(?i)^(test|default)[-_]?user[-_]?agent
""".strip().split("\n")


def bots(folder, version):
    yield "# Patterns of bots: regular expressions, one a line; a user agent in which one is found is a bot.\n"
    yield f"# From PyPI crawler-user-agents {version} (MIT, Martin Monperrus and contributors), with what version 1 changes and\n"
    yield "# adds, and what today's crawlers, agents and libraries need: see make.py. Never changed, only followed by v3.\n"
    listed = [entry["pattern"] for entry in json.load(open(f"{folder}/crawler-user-agents.json"))]
    listed = [v1.CHANGED.get(pattern, pattern) for pattern in listed] + v1.OURS
    seen = set()
    for pattern in [CHANGED.get(pattern, pattern) for pattern in listed] + OURS:
        if pattern and pattern not in seen:
            seen.add(pattern)
            yield v1.plain(pattern) + "\n"


if __name__ == "__main__":
    crawlers, version, out = sys.argv[1:]
    open(f"{out}/bots.txt", "w").writelines(bots(crawlers, version))
