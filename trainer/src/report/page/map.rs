//! The map of embeddings, by principal components and by t-SNE.

use std::fmt::Write;

use smalti_tools::markup::escape;

use super::{Section, figure};
use crate::console::out::percent;
use crate::report::chart::COLOURS;
use crate::report::gather::RunReport;
use crate::report::map::{self, EmbeddingMap, Point};

/// Side of a map in its own units, and what is left free around the points.
const SIDE: f64 = 400.0;
const BORDER: f64 = 14.0;

pub(super) fn section(run: &RunReport) -> Option<Section> {
    let found = run.map.shown()?;
    let [first, second] = found.explained;
    let learned = found.points.iter().filter(|point| point.learned).count();
    let held_out = found.points.len() - learned;
    let mut body = format!(
        "<p>Each point is one image, placed by what the model computes of it: images that are alike to the model lie side by side. \
         {} images, {}. Point at one to see it.</p>\n",
        found.points.len(),
        if held_out == 0 {
            "all learned from".into()
        } else {
            format!("filled: {held_out} held out, rings: {learned} learned from")
        }
    );
    body += &legend(found);
    body += "<div class=\"pair\">\n";
    let neighbours = drawing(found, "map by t-SNE", &|point| point.neighbours);
    body +=
        &figure(&neighbours, "t-SNE: neighbours stay neighbours; distances between far groups mean little.");
    let components = drawing(found, "map by principal components", &|point| point.components);
    let caption = format!(
        "Principal components: the two directions of most variance, {} of it across and {} upwards.",
        percent(first),
        percent(second)
    );
    body += &figure(&components, &caption);
    let columns = map::COLUMNS.min(found.points.len().max(1));
    _ = write!(
        body,
        "</div>\n<div id=\"peek\" data-columns=\"{columns}\" data-rows=\"{}\" hidden=\"hidden\"><div></div><span></span></div>\n\
         <details><summary>All images of the map</summary>\n<img id=\"sheet\" src=\"{}\" alt=\"the images of the map\" \
         style=\"max-width:100%\" /></details>\n",
        found.points.len().div_ceil(columns),
        found.sheet
    );
    Some(Section::new("map", "What looks alike to the model", body))
}

/// The colour of a class. There are fewer colours than some data sets have classes; titles tell them apart.
fn colour(class: Option<u32>) -> usize {
    class.map_or(COLOURS - 1, |class| class as usize % (COLOURS - 1))
}

fn legend(found: &EmbeddingMap) -> String {
    let is_present = |class: u32| found.points.iter().any(|point| point.class == Some(class));
    let mut items = String::new();
    for (class, name) in
        found.classes.iter().enumerate().filter(|(class, _)| is_present(*class as u32)).take(30)
    {
        _ = writeln!(
            items,
            "<li class=\"c{}\"><span>{}</span></li>",
            colour(Some(class as u32)),
            escape(name)
        );
    }
    if found.points.iter().any(|point| point.class.is_none()) {
        _ = writeln!(items, "<li class=\"c{}\"><span>without label</span></li>", colour(None));
    }
    let more = if found.classes.len() > COLOURS - 1 {
        "<p class=\"note\">Some classes share a colour.</p>\n"
    } else {
        ""
    };
    format!("<ul class=\"legend\">\n{items}</ul>\n{more}")
}

fn drawing(found: &EmbeddingMap, label: &str, place: &dyn Fn(&Point) -> [f64; 2]) -> String {
    let ends = |axis: usize| {
        let values = found.points.iter().map(|point| place(point)[axis]).filter(|value| value.is_finite());
        let [low, high] =
            [values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max)];
        if low < high { [low, high] } else { [low - 1.0, low + 1.0] }
    };
    let ranges = [ends(0), ends(1)];
    let at = |value: f64, axis: usize| {
        let [low, high] = ranges[axis];
        let share = (value - low) / (high - low);
        BORDER + (SIDE - 2.0 * BORDER) * if axis == 0 { share } else { 1.0 - share }
    };
    let mut svg = format!(
        "<svg class=\"map\" viewBox=\"0 0 {SIDE} {SIDE}\" role=\"img\" aria-label=\"{label}\">\n\
         <rect width=\"{SIDE}\" height=\"{SIDE}\" rx=\"6\"/>\n"
    );
    let has_both = found.points.iter().any(|point| !point.learned);
    for (i, point) in found.points.iter().enumerate() {
        let [x, y] = place(point);
        if !(x.is_finite() && y.is_finite()) {
            continue;
        }
        let class = point.class.and_then(|class| found.classes.get(class as usize));
        let learned = if point.learned && has_both { " learned" } else { "" };
        _ = writeln!(
            svg,
            "<circle class=\"c{}{learned}\" data-i=\"{i}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{}: {}</title></circle>",
            colour(point.class),
            at(x, 0),
            at(y, 1),
            escape(class.map_or("without label", String::as_str)),
            escape(&point.place)
        );
    }
    svg + "</svg>\n"
}
