use maud::html;

use crate::{Colour, View, words};

/// The light as a small picture.
pub(crate) fn badge(view: &View) -> String {
    let (ground, word) = match view.status {
        Colour::Green => ("#1a7f4b", "on time"),
        Colour::Yellow => ("#a86c00", if view.troubles[0].kind.is_maintenance() { "maintenance" } else { "delayed" }),
        Colour::Red => ("#b3261e", "at risk"),
    };
    // Verdana's letters at 11 px are 7 px wide on average, with 8 px around them.
    let (left, right) = (66, 16 + 7 * word.len());
    let width = left + right;
    let markup = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(width) height="20" role="img" aria-label={ "statistics: " (word) } {
            title { (words::of_xml(&view.sentence)) }
            rect width=(width) height="20" rx="3" fill="#444c56" {}
            rect x=(left) width=(right) height="20" rx="3" fill=(ground) {}
            rect x=(left) width="4" height="20" fill=(ground) {}
            g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" {
                text x=(left / 2) y="14" { "statistics" }
                text x=(left + right / 2) y="14" { (word) }
            }
        }
    };
    markup.into_string()
}
