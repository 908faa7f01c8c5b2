//! The map of embeddings: images that look alike to the model lie side by side.

use serde::Serialize;
use smalti_trainer::evaluate::projection::{principal_components, tsne};
use smalti_trainer::{Result, sheet};

use super::answers::Asked;
use super::picture;

/// Images on the map, and the side of their thumbnails.
pub(super) const POINTS: usize = 400;
pub(super) const TILE: usize = 40;
/// Thumbnails in a row of their sheet.
pub(super) const COLUMNS: usize = 20;

/// Where images lie.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EmbeddingMap {
    pub(super) classes: Vec<String>,
    #[serde(skip)]
    pub(super) points: Vec<Point>,
    /// Share of the variance of both components.
    pub(super) explained: [f64; 2],
    /// The thumbnails of all points, in their order.
    #[serde(skip)]
    pub(super) sheet: String,
}

/// One image.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) components: [f64; 2],
    pub(super) neighbours: [f64; 2],
    pub(super) class: Option<u32>,
    /// Whether the model has learned its label.
    pub(super) learned: bool,
    pub(super) place: String,
}

impl EmbeddingMap {
    /// Lays out images, each set with whether its labels were learned.
    pub(super) fn gather(sets: &[(&Asked, bool)], classes: &[String]) -> Result<EmbeddingMap> {
        let all: usize = sets.iter().map(|(asked, _)| asked.found.ids.len()).sum();
        let (mut rows, mut points, mut tiles) = (Vec::new(), Vec::new(), Vec::new());
        let dim = sets.first().map_or(1, |(asked, _)| asked.found.dim).max(1);
        for (asked, learned) in sets {
            let n = asked.found.ids.len();
            let count = if all > POINTS { (n * POINTS / all).max(1).min(n) } else { n };
            for at in (0..count).map(|i| i * n / count) {
                let i = asked.found.ids[at] as usize;
                let Ok(tile) = picture::thumbnail(&asked.data, i, TILE) else { continue };
                let row = &asked.found.embeddings[at * dim..(at + 1) * dim];
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
                rows.extend(row.iter().map(|x| x / length));
                tiles.push(tile);
                points.push(Point {
                    components: [0.0; 2],
                    neighbours: [0.0; 2],
                    class: asked.found.labels[at],
                    learned: *learned,
                    place: asked.data.key(i),
                });
            }
        }
        let components = principal_components(&rows, dim);
        let neighbours = tsne(&rows, dim, &components.points);
        for ((point, at), near) in points.iter_mut().zip(&components.points).zip(&neighbours) {
            (point.components, point.neighbours) = (*at, *near);
        }
        let sheet = picture::uri(&sheet::sheet(&tiles, COLUMNS, 0)?)?;
        Ok(EmbeddingMap { classes: classes.to_vec(), points, explained: components.explained, sheet })
    }
}
