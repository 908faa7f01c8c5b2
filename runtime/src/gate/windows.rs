//! How the windows of a convolution or a pooling lie over an image.

use smalti_models::onnx::NodeProto;

use super::attributes::find;

/// Windows over an image, height before width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowFacts {
    /// Pixels of a window.
    pub kernel: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// Distance of a window's neighbouring pixels.
    pub dilation: [usize; 2],
    /// Lines above the image and columns to its left that windows reach.
    pub padding: [usize; 2],
    /// Windows along each side.
    pub output: [usize; 2],
}

/// The windows of a node over an image, by its attributes, which the gate has checked one by one.
///
/// # Errors
/// What was found and what is allowed, where they say no windows.
pub fn windows(
    node: &NodeProto,
    image: [usize; 2],
    kernel: [usize; 2],
) -> Result<WindowFacts, (String, &'static str)> {
    let ints = |name: &str| find(node, name).map(|attribute| &attribute.ints[..]);
    let pair = |name: &str| match ints(name) {
        None => Ok([1; 2]),
        Some(&[down, across]) => Ok([down as usize, across as usize]),
        Some(other) => Err((format!("{name} {other:?}"), "two values")),
    };
    let (stride, dilation) = (pair("strides")?, pair("dilations")?);
    let pads = match ints("pads") {
        None => [0; 4],
        Some(&[top, left, bottom, right]) => [top, left, bottom, right].map(|pad| pad as usize),
        Some(other) => return Err((format!("pads {other:?}"), "four values")),
    };
    let auto = find(node, "auto_pad").map_or(&b"NOTSET"[..], |attribute| &attribute.s);
    if auto != b"NOTSET" && pads != [0; 4] {
        return Err(("pads next to auto_pad".into(), "one of both"));
    }
    let is_same = matches!(auto, b"SAME_UPPER" | b"SAME_LOWER");
    let is_rounded_up = !is_same && find(node, "ceil_mode").is_some_and(|attribute| attribute.i == 1);
    let mut facts = WindowFacts { kernel, stride, dilation, padding: [0; 2], output: [0; 2] };
    for i in 0..2 {
        let reach = (kernel[i].max(1) - 1) * dilation[i] + 1;
        let (before, all) = if is_same {
            let end = (image[i].div_ceil(stride[i]).max(1) - 1) * stride[i] + reach;
            let all = end.saturating_sub(image[i]);
            (if auto == b"SAME_UPPER" { all / 2 } else { all.div_ceil(2) }, all)
        } else {
            (pads[i], pads[i] + pads[i + 2])
        };
        let Some(room) = (image[i] + all).checked_sub(reach).filter(|_| kernel[i] > 0) else {
            return Err((
                format!("a window of {reach} over {} pixels", image[i] + all),
                "a window that fits",
            ));
        };
        let mut output = room / stride[i] + 1;
        // One more window, some of which is beyond all padding, if it begins before the image ends.
        if is_rounded_up && !room.is_multiple_of(stride[i]) && output * stride[i] < image[i] + before {
            output += 1;
        }
        (facts.padding[i], facts.output[i]) = (before, output);
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use smalti_models::onnx::AttributeProto;

    use super::*;

    fn node(ints: &[(&str, &[i64])], auto: &str) -> NodeProto {
        let list = |(name, ints): &(&str, &[i64])| AttributeProto {
            name: (*name).into(),
            ints: ints.to_vec(),
            ..Default::default()
        };
        let auto = AttributeProto { name: "auto_pad".into(), s: auto.into(), ..Default::default() };
        NodeProto { attribute: ints.iter().map(list).chain([auto]).collect(), ..Default::default() }
    }

    #[test]
    fn padding_follows_from_the_attributes() {
        let of = |ints: &[(&str, &[i64])], auto: &str, image| {
            windows(&node(ints, auto), image, [3; 2]).map(|facts| (facts.padding, facts.output))
        };
        assert_eq!(of(&[], "NOTSET", [5, 7]), Ok(([0, 0], [3, 5])));
        assert_eq!(of(&[("pads", &[1, 0, 1, 2])], "NOTSET", [5, 7]), Ok(([1, 0], [5, 7])));
        assert_eq!(of(&[("strides", &[2, 2])], "SAME_UPPER", [6, 7]), Ok(([0, 1], [3, 4])));
        assert_eq!(of(&[("strides", &[2, 2])], "SAME_LOWER", [6, 7]), Ok(([1, 1], [3, 4])));
        assert_eq!(of(&[("dilations", &[2, 1])], "VALID", [5, 7]), Ok(([0, 0], [1, 5])));
        assert!(of(&[("dilations", &[3, 1])], "VALID", [5, 7]).is_err());
        let rounded_up = |pads: &[i64], image, stride: [i64; 2]| {
            let mut node = node(&[("pads", pads), ("strides", &stride)], "NOTSET");
            node.attribute.push(AttributeProto::int("ceil_mode", 1));
            windows(&node, image, [3; 2]).unwrap().output
        };
        assert_eq!(rounded_up(&[0; 4], [7, 8], [2, 2]), [3, 4]);
        // The last one would begin behind the image.
        assert_eq!(rounded_up(&[0, 0, 2, 2], [6, 6], [3, 3]), [2, 2]);
        assert!(of(&[("pads", &[1, 1, 1, 1])], "SAME_UPPER", [5, 7]).is_err());
        assert!(of(&[("pads", &[1, 1])], "NOTSET", [5, 7]).is_err());
        assert!(of(&[("strides", &[1])], "NOTSET", [5, 7]).is_err());
    }
}
