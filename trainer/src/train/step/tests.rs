//! The sum of a batch against the plainest one, over threads and over ranks.

use std::ops::Range;
use std::sync::Arc;

use super::sum::MIN_PART;
use super::{BatchPlan, GradLanes};
use crate::error::Error;
use crate::model::grads::Grads;
use crate::train::ranks::Ranks;

const LEN: usize = 3 * MIN_PART + 7;

/// Gradients whose order of addition shows in the last bits.
fn add_gradients(images: Range<usize>, grads: &mut Grads<'_, f32>) -> f64 {
    for i in images.clone() {
        grads.iter_mut().enumerate().for_each(|(j, g)| *g += 1.0 / (1 + i * 7 + j) as f32);
    }
    // From the end on, as a model does.
    [LEN - 5, 2 * MIN_PART, MIN_PART + 1, MIN_PART].into_iter().for_each(|start| grads.ready_from(start));
    images.map(|i| 1.0 / (i + 1) as f64).sum()
}

fn total(threads: usize, batch: usize, ranks: Option<Arc<Ranks>>) -> (f64, Vec<f32>) {
    let mut lanes = GradLanes::<()>::new(threads, LEN).unwrap().among(ranks);
    // Twice: the second sum finds the first one's buffers.
    for _ in 0..2 {
        lanes.sum(BatchPlan::new(batch, 3), |images, (), grads| add_gradients(images, grads)).unwrap();
    }
    lanes.finish(|loss, grads| (loss, grads.to_vec()))
}

/// All lanes one after the other, added in order.
fn plain(batch: usize) -> (f64, Vec<f32>) {
    let plan = BatchPlan::new(batch, 3);
    let (mut loss, mut sum) = (0.0, vec![0.0; LEN]);
    for lane in 0..plan.lanes() {
        let (mut lane_loss, mut values) = (0.0, vec![0.0; LEN]);
        for micro in plan.micros(lane) {
            lane_loss += add_gradients(plan.images(micro), &mut Grads::new(&mut values));
        }
        loss += lane_loss;
        sum.iter_mut().zip(values).for_each(|(sum, g)| *sum += g);
    }
    (loss, sum)
}

#[test]
fn threads_do_not_change_a_bit() {
    for batch in [1, 2, 17, 64, 250] {
        let want = plain(batch);
        [1, 2, 5].into_iter().for_each(|threads| assert_eq!(total(threads, batch, None), want));
        let sum: f64 = (0..batch).map(|i| 1.0 / (i + 1) as f64).sum();
        assert!((want.0 - sum).abs() < 1e-9);
    }
}

#[test]
fn ranks_do_not_change_a_bit() {
    for (size, batch) in [(2, 64), (3, 64), (4, 5), (5, 2), (3, 250)] {
        let want = plain(batch);
        let ranks: Vec<_> = Ranks::threads(size).into_iter().map(Arc::new).collect();
        std::thread::scope(|scope| {
            let jobs =
                ranks.iter().map(|ranks| scope.spawn(move || total(2, batch, Some(Arc::clone(ranks)))));
            for job in jobs.collect::<Vec<_>>() {
                assert!(job.join().unwrap() == want, "{size} ranks, {batch} images");
            }
        });
    }
}

#[test]
fn an_empty_batch_has_no_gradient() {
    assert_eq!(total(2, 0, None), (0.0, vec![0.0; LEN]));
}

#[test]
fn a_lost_rank_ends_the_wait() {
    let mut ranks = Ranks::threads(2).into_iter().map(Arc::new);
    let first = ranks.next().unwrap();
    first.on_stop(|| Some(143));
    let mut lanes = GradLanes::<()>::new(2, LEN).unwrap().among(Some(first));
    let error = lanes.sum(BatchPlan::new(64, 3), |images, (), grads| add_gradients(images, grads));
    assert!(matches!(error, Err(Error::Interrupted { code: 143, .. })));
}

#[test]
fn map_keeps_the_order() {
    let lanes = GradLanes::<u8>::new(3, 1).unwrap();
    let micros = lanes.map(10, 4, |images, _| images);
    assert_eq!(micros, [0..4, 4..8, 8..10]);
}
