//! Which images to label first.
//!
//! Embeddings fall into as many clusters as there will be labels, and each cluster without a label, the largest first, gives an
//! image. With few labels typical images teach most (TypiClust, arXiv 2202.02794): the one whose neighbours in the cluster are
//! nearest. Once a classifier exists, it is the one that the classifier is least sure about (after Cluster-Margin, arXiv
//! 2107.14263). TypiClust passes over clusters of five images and fewer; with ten labels for each of many classes most are as
//! small, and only those of one image are passed over here.

mod kmeans;

pub use kmeans::kmeans;

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::evaluate::probe::to_unit_length;
use kmeans::squared_distances;

/// Neighbours that say how typical an image is, at most.
const NEIGHBOURS: usize = 20;
/// Maximum number of clusters: beyond it several images of each are taken.
const MAX_CLUSTERS: usize = 500;

/// The images to choose from.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// `[images, dim]`.
    pub embeddings: &'a [f32],
    /// Width of an embedding.
    pub dim: usize,
    /// Whether each image has a label: such images are not taken, and their clusters count as covered.
    pub labelled: &'a [bool],
    /// How little sure a classifier is of each image, from 0 to 1.
    pub doubt: Option<&'a [f32]>,
}

impl Pool<'_> {
    fn check(&self) -> Result<()> {
        let (images, values) = (self.labelled.len(), self.embeddings.len());
        let doubts = self.doubt.map_or(images, <[f32]>::len);
        if self.dim > 0 && images.checked_mul(self.dim) == Some(values) && doubts == images {
            return Ok(());
        }
        let dim = self.dim;
        Err(Error::Usage(format!(
            "{images} images, {values} values in embeddings of {dim}, {doubts} doubts: expected one pool's"
        )))
    }
}

/// Takes `number` images, in the order in which they teach most. `accept` is asked of each image before it is taken, and may
/// turn it away: because it repeats another, or cannot be used. Fewer come back where no more are left.
///
/// # Errors
/// A pool whose parts are not of as many images; what `accept` says.
pub fn pick(
    pool: &Pool<'_>,
    number: usize,
    seed: u64,
    accept: &mut dyn FnMut(usize) -> Result<bool>,
) -> Result<Vec<usize>> {
    pool.check()?;
    let mut clusters = Cluster::of_pool(pool, number, seed)?;
    let mut taken = Vec::new();
    while taken.len() < number {
        let Some(next) = (0..clusters.len())
            .filter(|i| !clusters[*i].open.is_empty())
            .min_by(|a, b| clusters[*a].order(&clusters[*b]))
        else {
            break;
        };
        let cluster = &mut clusters[next];
        while let Some(image) = cluster.open.pop() {
            if accept(image)? {
                taken.push(image);
                cluster.labels += 1;
                break;
            }
        }
    }
    Ok(taken)
}

/// Images that look alike to the encoder.
struct Cluster {
    /// Number of images.
    size: usize,
    /// How many of them have a label, or will have one.
    labels: usize,
    /// Images that can be taken, the one that teaches most last.
    open: Vec<usize>,
}

impl Cluster {
    /// As many clusters as there will be labels.
    fn of_pool(pool: &Pool<'_>, number: usize, seed: u64) -> Result<Vec<Cluster>> {
        let row = |image: usize| &pool.embeddings[image * pool.dim..(image + 1) * pool.dim];
        // Zeros stand for images that cannot be used.
        let images: Vec<usize> =
            (0..pool.labelled.len()).filter(|image| row(*image).iter().any(|x| *x != 0.0)).collect();
        let mut rows: Vec<f32> = images.iter().flat_map(|image| row(*image)).copied().collect();
        rows.chunks_exact_mut(pool.dim).for_each(to_unit_length);
        let labels = images.iter().filter(|image| pool.labelled[**image]).count();
        let count = (labels + number).min(MAX_CLUSTERS).min(images.len());
        let mut members = vec![Vec::new(); count];
        for (place, cluster) in kmeans(&rows, pool.dim, count, seed)?.into_iter().enumerate() {
            members[cluster].push(place);
        }
        let of_members = |members: Vec<usize>| {
            let own: Vec<f32> =
                members.iter().flat_map(|i| &rows[i * pool.dim..][..pool.dim]).copied().collect();
            let members = members.into_iter().map(|i| images[i]);
            let mut ranked: Vec<(f32, usize)> = match pool.doubt {
                Some(doubt) => members.map(|image| (1.0 - doubt[image], image)).collect(),
                None => spreads(&own, pool.dim)?.into_iter().zip(members).collect(),
            };
            // Of equals the first image comes first, so it is last here.
            ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
            let images: Vec<usize> = ranked.into_iter().map(|(_, image)| image).collect();
            Ok(Cluster {
                size: images.len(),
                labels: images.iter().filter(|image| pool.labelled[**image]).count(),
                open: images.into_iter().filter(|image| !pool.labelled[*image]).collect(),
            })
        };
        members.into_iter().map(of_members).collect()
    }

    /// Which of two clusters is to be asked about first.
    fn order(&self, other: &Cluster) -> Ordering {
        // What is like nothing else comes last.
        let rank = |cluster: &Cluster| (cluster.size == 1, cluster.labels);
        rank(self).cmp(&rank(other)).then(other.size.cmp(&self.size))
    }
}

/// The mean distance of each row from its nearest others: what is typical has a small one.
fn spreads(rows: &[f32], dim: usize) -> Result<Vec<f32>> {
    let neighbours = NEIGHBOURS.min(rows.len() / dim.max(1) / 2);
    squared_distances(rows, rows, dim, |distances| {
        let mut nearest = distances.to_vec();
        // The row itself is among them.
        let count = (neighbours + 1).min(nearest.len());
        if count < nearest.len() {
            nearest.select_nth_unstable_by(count, f32::total_cmp);
        }
        nearest[..count].sort_unstable_by(f32::total_cmp);
        nearest[..count].iter().map(|square| square.sqrt()).sum::<f32>() / neighbours.max(1) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const DIM: usize = 8;

    /// Clouds of these sizes, each around an axis of its own; images of a cloud follow each other.
    fn clouds(sizes: &[usize]) -> Vec<f32> {
        let mut rng = Rng::new(3, 0, []);
        let clouds = sizes.iter().enumerate().flat_map(|(axis, size)| std::iter::repeat_n(axis, *size));
        clouds
            .flat_map(|axis| {
                let row: Vec<f32> = (0..DIM)
                    .map(|d| (if d == axis { 5.0 } else { 0.0 }) + 0.3 * rng.normal() as f32)
                    .collect();
                row
            })
            .collect()
    }

    fn cloud(sizes: &[usize], image: usize) -> usize {
        let mut end = 0;
        sizes
            .iter()
            .position(|size| {
                end += size;
                image < end
            })
            .unwrap()
    }

    fn picked(embeddings: &[f32], labelled: &[bool], doubt: Option<&[f32]>, number: usize) -> Vec<usize> {
        let pool = Pool { embeddings, dim: DIM, labelled, doubt };
        pick(&pool, number, 0, &mut |_| Ok(true)).unwrap()
    }

    #[test]
    fn each_cloud_gives_a_typical_image_the_largest_first() {
        let sizes = [30, 60, 45];
        let embeddings = clouds(&sizes);
        let found = picked(&embeddings, &[false; 135], None, 3);
        assert_eq!(found.iter().map(|i| cloud(&sizes, *i)).collect::<Vec<_>>(), [1, 2, 0]);
        // Of its cloud the image is among those that are nearest to the others, by the plain definition.
        let unit = |i: usize| {
            let mut row = embeddings[i * DIM..(i + 1) * DIM].to_vec();
            to_unit_length(&mut row);
            row
        };
        let apart = |a: usize, b: usize| -> f32 {
            unit(a).iter().zip(unit(b)).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
        };
        let spread = |i: usize| {
            let mut distances: Vec<f32> = (30..90).filter(|j| *j != i).map(|j| apart(i, j)).collect();
            distances.sort_unstable_by(f32::total_cmp);
            distances[..NEIGHBOURS].iter().sum::<f32>()
        };
        let best = (30..90).min_by(|a, b| spread(*a).total_cmp(&spread(*b)));
        assert_eq!(Some(found[0]), best);
    }

    #[test]
    fn clouds_with_labels_are_covered() {
        let sizes = [40, 40, 40, 40];
        let embeddings = clouds(&sizes);
        let mut labelled = vec![false; 160];
        [3, 50].into_iter().for_each(|i| labelled[i] = true);
        let found = picked(&embeddings, &labelled, None, 2);
        let mut of: Vec<usize> = found.iter().map(|i| cloud(&sizes, *i)).collect();
        of.sort_unstable();
        assert_eq!(of, [2, 3]);
    }

    #[test]
    fn what_a_classifier_is_not_sure_about_comes_first() {
        let embeddings = clouds(&[40, 40]);
        let doubt: Vec<f32> = (0..80).map(|i| if [7, 61].contains(&i) { 0.9 } else { 0.1 }).collect();
        let mut found = picked(&embeddings, &[false; 80], Some(&doubt), 2);
        found.sort_unstable();
        assert_eq!(found, [7, 61]);
    }

    #[test]
    fn images_are_turned_away_taken_once_and_in_the_same_order_again() {
        let sizes = [20, 1, 20];
        let mut embeddings = clouds(&sizes);
        embeddings[5 * DIM..6 * DIM].fill(0.0);
        let pool = Pool { embeddings: &embeddings, dim: DIM, labelled: &[false; 41], doubt: None };
        let take = |seed| pick(&pool, 41, seed, &mut |i| Ok(i % 2 == 0)).unwrap();
        let found = take(1);
        let mut sorted = found.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..41).step_by(2).collect::<Vec<_>>(), "all of them, once");
        assert_eq!(found, take(1));
        let odd = picked(&embeddings, &[false; 41], None, 3);
        assert!(
            !odd.contains(&5) && odd.iter().all(|i| cloud(&sizes, *i) != 1),
            "{odd:?}: what is rare waits"
        );
        let fails = pick(&pool, 3, 0, &mut |_| Err(Error::Usage("no".into())));
        assert!(fails.is_err());
        assert!(picked(&[], &[], None, 3).is_empty());
        let short = Pool { labelled: &[false; 40], ..pool };
        assert!(pick(&short, 1, 0, &mut |_| Ok(true)).is_err());
    }
}
