use super::sources::{ClickId, SiteKind};

/// What decides the channel of a visit from outside.
pub(super) struct Facts<'a> {
    /// Kind of the site that it came from, if it is a known one.
    pub(super) kind: Option<SiteKind>,
    /// Whether anything says where it came from.
    pub(super) any_source: bool,
    pub(super) click_id: Option<&'a ClickId>,
    /// Lower case.
    pub(super) utm_source: &'a str,
    /// Lower case.
    pub(super) utm_medium: &'a str,
    /// What `utm_medium` says of an AI assistant in this version of the lists.
    pub(super) ai_medium: &'a [String],
}

/// The channel, one of [`CHANNELS`](super::CHANNELS): the first line that holds.
///
/// The order and the words of `utm_medium` are those of Google Analytics' default channel group. All versions share
/// them: a line that one of them lacks holds for nothing in its lists.
pub(super) fn of(facts: &Facts<'_>) -> String {
    let medium = facts.utm_medium;
    let paid = is_paid(medium) || facts.click_id.is_some_and(|id| id.channel.starts_with("paid_"));
    let tagged = |words: &[&str]| words.contains(&medium);
    let either = |words: &[&str]| words.contains(&medium) || words.contains(&facts.utm_source);
    let by_site = |kind| facts.kind == Some(kind);
    let by_click = |channel: &str| medium.is_empty() && facts.click_id.is_some_and(|id| id.channel == channel);
    let channel = if paid && by_site(SiteKind::Search) {
        "paid_search"
    } else if paid && by_site(SiteKind::Social) {
        "paid_social"
    } else if paid && by_site(SiteKind::Video) {
        "paid_video"
    } else if tagged(&["display", "banner", "expandable", "interstitial", "cpm"]) || by_click("display") {
        "display"
    } else if by_click("paid_search") {
        "paid_search"
    } else if by_click("paid_social") {
        "paid_social"
    } else if paid {
        "paid_other"
    } else if either(&["email", "e-mail", "e_mail", "e mail", "newsletter"]) || by_click("email") {
        "email"
    } else if tagged(&["affiliate", "affiliates"]) {
        "affiliates"
    } else if either(&["sms"]) {
        "sms"
    } else if tagged(&["audio", "podcast"]) {
        "audio"
    } else if medium.ends_with("push") || tagged(&["mobile", "notification"]) || facts.utm_source == "firebase" {
        "push"
    } else if tagged(&["social", "social-network", "social-media", "sm", "social network", "social media"])
        || by_site(SiteKind::Social)
        || by_click("organic_social")
    {
        "organic_social"
    } else if medium.contains("video") || by_site(SiteKind::Video) {
        "video"
    } else if by_site(SiteKind::Ai) || facts.ai_medium.iter().any(|word| word == medium) {
        "ai_assistants"
    } else if tagged(&["organic"]) || by_site(SiteKind::Search) {
        "organic_search"
    } else if by_site(SiteKind::Email) {
        "email"
    } else if facts.any_source || !medium.is_empty() {
        "referral"
    } else {
        "direct"
    };
    channel.to_owned()
}

/// `cpc`, `ppc`, `cpa`, `retargeting`, `paid`, `paid-social`, …
fn is_paid(medium: &str) -> bool {
    medium != "cpm" && (medium.contains("cp") || matches!(medium, "ppc" | "retargeting") || medium.starts_with("paid"))
}
