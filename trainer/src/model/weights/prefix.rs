//! One form for the tokens in front of the patches and their positions, of which files have several.
//!
//! Registers of ours have no positions, and the class token in front of them has none either: timm's form of DINOv2 with
//! registers. Where a file has such positions they are added to the tokens, which changes nothing: each is added to its
//! token in every image. DeiT's distillation token is a register by another name: what it learns is read by the other tokens.

use std::collections::BTreeMap;

use super::names::Dialect;
use super::{Entry, Source, Tensors};

const REGISTERS: &str = "reg_token";
const DISTILLATION: &str = "dist_token";

/// Brings registers, class token and positions into our form. What cannot be understood stays as it is, and is refused
/// later.
pub(super) fn unify(dialect: Dialect, tensors: &mut Tensors, entries: &mut BTreeMap<String, Entry>) {
    let is_distilled = entries.contains_key(DISTILLATION) && !entries.contains_key(REGISTERS);
    if is_distilled && let Some(entry) = entries.remove(DISTILLATION) {
        entries.insert(REGISTERS.into(), entry);
    }
    _ = move_positions(dialect, is_distilled, tensors, entries);
}

/// Adds the positions of class token and registers to them. None where there are no registers, or a shape is none of ours.
fn move_positions(
    dialect: Dialect,
    is_distilled: bool,
    tensors: &mut Tensors,
    entries: &BTreeMap<String, Entry>,
) -> Option<()> {
    let name = |timm: &str| match &entries.get(timm)?.source {
        Source::Whole(name) => Some(name.clone()),
        Source::Pieces(_) => None,
    };
    let [registers, class, positions] = [name(REGISTERS)?, name("cls_token")?, name("pos_embed")?];
    let shape = |name: &String| -> Option<[usize; 3]> {
        tensors.get(name).filter(|tensor| tensor.is_float())?.shape[..].try_into().ok()
    };
    let [1, count, dim] = shape(&registers)? else { return None };
    let [1, rows, of_positions] = shape(&positions)? else { return None };
    if dim == 0 || of_positions != dim || shape(&class)? != [1, 1, dim] {
        return None;
    }
    let all = count.checked_add(1)?;
    // The rows in front of those of patches: the likeliest first, and what leaves a square.
    let likely = match dialect {
        _ if is_distilled => [all, 1, 0],
        Dialect::Timm => [0, all, 1],
        Dialect::HuggingFace => [1, all, 0],
    };
    let leaves_a_square = |first: &usize| {
        let patches = rows.saturating_sub(*first);
        patches > 0 && patches.isqrt().pow(2) == patches
    };
    let first = likely.into_iter().find(leaves_a_square)?;
    let table = tensors.get_mut(&positions)?;
    // As many values as the shape says: the reader has made sure.
    let moved: Vec<f32> = table.values.drain(..first * dim).collect();
    table.shape = vec![1, rows - first, dim];
    let tokens = [(class, 0), (registers, 1)];
    for (name, at) in tokens {
        let values = &mut tensors.get_mut(&name)?.values;
        let positions = moved.get(at * dim..).unwrap_or_default();
        values.iter_mut().zip(positions).for_each(|(x, position)| *x += position);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::{Tensor, Weights};
    use serde_json::Value;
    use std::path::Path;

    /// A table of `rows` rows of which row `i` is `100 · (i + 1)`, behind a class token and registers that count from 1.
    fn read(names: [&str; 3], registers: usize, rows: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let tensor = |shape: [usize; 3], values: Vec<f32>| Tensor::new(&shape, values);
        let row = |value: usize| [value as f32; 2];
        let [class, register, positions] = names.map(str::to_string);
        let tensors = Tensors::from([
            (class, tensor([1, 1, 2], row(1).to_vec())),
            (register, tensor([1, registers, 2], (0..registers).flat_map(|i| row(2 + i)).collect())),
            (positions, tensor([1, rows, 2], (0..rows).flat_map(|i| row(100 * (i + 1))).collect())),
        ]);
        let weights = Weights::new(Path::new("w"), tensors, Value::Null).unwrap();
        let of = |timm: &str| weights.values(&weights.entries[timm]);
        (of("cls_token"), of("reg_token"), of("pos_embed"))
    }

    const TIMM: [&str; 3] = ["cls_token", "reg_token", "pos_embed"];
    const FACE: [&str; 3] =
        ["embeddings.cls_token", "embeddings.register_tokens", "embeddings.position_embeddings"];

    #[test]
    fn positions_of_patches_alone_stay() {
        let (class, registers, positions) = read(TIMM, 2, 4);
        assert_eq!((class, registers, positions.len()), (vec![1.0; 2], vec![2.0, 2.0, 3.0, 3.0], 8));
    }

    #[test]
    fn positions_of_tokens_are_added_to_them() {
        let (class, registers, positions) = read(TIMM, 2, 7);
        assert_eq!((class, registers), (vec![101.0; 2], vec![202.0, 202.0, 303.0, 303.0]));
        assert_eq!((positions.len(), positions[0]), (8, 400.0));
        let (class, registers, positions) = read(FACE, 4, 5);
        assert_eq!((class, registers[0], positions[0]), (vec![101.0; 2], 2.0, 200.0));
    }

    #[test]
    fn a_distillation_token_is_a_register() {
        let face =
            ["embeddings.cls_token", "embeddings.distillation_token", "embeddings.position_embeddings"];
        for names in [["cls_token", "dist_token", "pos_embed"], face] {
            let (class, registers, positions) = read(names, 1, 6);
            assert_eq!((class, registers, positions[0]), (vec![101.0; 2], vec![202.0; 2], 300.0));
        }
    }

    #[test]
    fn a_table_that_fits_nothing_stays() {
        let (class, _, positions) = read(TIMM, 2, 6);
        assert_eq!((class, positions.len()), (vec![1.0; 2], 12));
    }
}
