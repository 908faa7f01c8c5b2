//! Which labels are likely wrong (confident learning, Northcutt et al. 2021, arXiv 1911.00068, section 3).

/// The images whose label is likely another one, most likely first: those that a classifier puts into another class with at
/// least the mean probability that images of that class have of it. `probabilities` `[images, classes]` are of a classifier that
/// has not learned from these labels.
pub fn suspects(probabilities: &[f64], labels: &[u32], classes: usize) -> Vec<usize> {
    let rows = || probabilities.chunks_exact(classes.max(1)).zip(labels);
    let mut sums = vec![(0.0, 0usize); classes];
    for (row, &label) in rows() {
        if let (Some(sum), Some(p)) = (sums.get_mut(label as usize), row.get(label as usize)) {
            *sum = (sum.0 + p, sum.1 + 1);
        }
    }
    // A class without images is nobody's.
    let least: Vec<f64> =
        sums.iter().map(|&(sum, n)| if n == 0 { f64::INFINITY } else { sum / n as f64 }).collect();
    let mut found: Vec<(f64, usize)> = Vec::new();
    for (i, (row, &label)) in rows().enumerate() {
        let confident = row.iter().zip(&least).enumerate().filter(|(_, (p, least))| p >= least);
        let Some((class, (p, _))) = confident.max_by(|a, b| a.1.0.total_cmp(b.1.0)) else { continue };
        if class != label as usize {
            found.push((row.get(label as usize).copied().unwrap_or(0.0) - p, i));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanged_labels_are_found_and_doubtful_images_are_not() {
        // Two classes; image 4 has the other's label, image 5 is hard.
        let of_first = [0.9, 0.8, 0.1, 0.2, 0.95, 0.45];
        let labels = [0, 0, 1, 1, 1, 0];
        let probabilities: Vec<f64> = of_first.iter().flat_map(|p| [*p, 1.0 - p]).collect();
        assert_eq!(suspects(&probabilities, &labels, 2), [4]);
        assert!(suspects(&[], &[], 3).is_empty());
    }

    #[test]
    fn the_surest_come_first() {
        let of_first = [0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.85, 0.99];
        let labels = [0, 0, 0, 1, 1, 1, 1, 1];
        let probabilities: Vec<f64> = of_first.iter().flat_map(|p| [*p, 1.0 - p]).collect();
        assert_eq!(suspects(&probabilities, &labels, 2)[0], 7);
    }
}
