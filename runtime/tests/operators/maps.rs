//! What convolutional networks consist of, drawn: convolutions of all kinds, what follows them, pooling, residual sums.

use super::draw::{Draw, Value};

/// A side of a map behind windows; none where they do not fit.
fn side(side: i64, [kernel, stride, dilation]: [i64; 3], padding: i64) -> Option<i64> {
    let room = side + padding - (kernel - 1) * dilation - 1;
    (room >= 0).then(|| room / stride + 1)
}

impl Draw {
    /// A map `[1, 8, H, W]` made of the image in a few steps.
    pub(super) fn map(&mut self, image: &str, sides: [i64; 2]) -> Value {
        let mut values = vec![(image.to_owned(), vec![1, 3, sides[0], sides[1]])];
        for _ in 0..1 + self.dice.roll(6) {
            let (x, other) = (values[values.len() - 1].clone(), self.dice.roll(values.len()));
            let other = values[other].clone();
            let next = self.map_step(&x, &other);
            values.push(next);
        }
        let (x, dims) = values.swap_remove(values.len() - 1);
        let weight = self.floats(&[8, dims[1], 1, 1], 0.5);
        (self.node("Conv", &[&x, &weight], &[]), vec![1, 8, dims[2], dims[3]])
    }

    fn map_step(&mut self, (x, dims): &Value, other: &Value) -> Value {
        let channels = dims[1];
        let same = |name: String| (name, dims.clone());
        match self.dice.roll(12) {
            0..=3 => self.convolution((x, dims)),
            4 => {
                let [scale, shift, mean] = [0.5, 1.0, 1.0].map(|size| self.floats(&[channels], size));
                let variance = (0..channels).flat_map(|_| (0.2 + self.dice.float().abs()).to_le_bytes());
                let variance = variance.collect();
                let variance = self.constant(1, &[channels], variance);
                same(self.node("BatchNormalization", &[x, &scale, &shift, &mean, &variance], &[]))
            }
            5 | 6 => same(self.activation(x)),
            7 => self.max_pool((x, dims)),
            8 if other.1 == *dims => same(self.node("Add", &[x, &other.0], &[])),
            9 => same(self.pair(x)),
            10 => {
                let row = self.floats(&[channels, 1, 1], 1.0);
                let op = self.dice.pick(&["Add", "Mul", "Sub"]);
                same(self.node(op, &[x, &row], &[]))
            }
            _ => {
                let y = self.activation(x);
                self.convolution((&y, dims))
            }
        }
    }

    fn activation(&mut self, x: &str) -> String {
        match self.dice.roll(6) {
            0 | 1 => self.node("Relu", &[x], &[]),
            2 => {
                let [low, high] =
                    self.dice.pick(&[[0.0, 6.0], [-0.5, 0.75], [0.0, 1.0]]).map(|end| self.number(end));
                self.node("Clip", &[x, &low, &high], &[])
            }
            3 => self.node("HardSwish", &[x], &[]),
            4 => {
                let sigmoid = self.node("Sigmoid", &[x], &[]);
                self.node("Mul", &[x, &sigmoid], &[])
            }
            _ => self.gelu(x),
        }
    }

    /// Windows along each side that fit: kernel, stride, dilation and padding before and after.
    fn windows(&mut self, dims: &[i64], padding: &[i64]) -> ([[i64; 3]; 2], [i64; 4], [i64; 2]) {
        loop {
            let mut one = || {
                [
                    self.dice.pick(&[1, 2, 3, 3, 3, 5]),
                    self.dice.pick(&[1, 1, 2, 3]),
                    self.dice.pick(&[1, 1, 1, 2]),
                ]
            };
            let windows = [one(), one()];
            let pads: [i64; 4] = std::array::from_fn(|_| self.dice.pick(padding));
            let sides = [0, 1].map(|i| side(dims[2 + i], windows[i], pads[i] + pads[i + 2]));
            // Pooling pads less than a window.
            let fits = (0..4).all(|i| pads[i] < windows[i % 2][0]) || padding.len() > 2;
            if let ([Some(down), Some(across)], true) = (sides, fits) {
                return (windows, pads, [down, across]);
            }
        }
    }

    fn convolution(&mut self, (x, dims): (&str, &[i64])) -> Value {
        let channels = dims[1];
        let (windows, pads, [down, across]) = self.windows(dims, &[0, 1, 1, 2, 4]);
        let groups = match self.dice.roll(4) {
            0 | 1 => channels,
            2 if channels % 2 == 0 => 2,
            _ => 1,
        };
        let outputs = groups
            * if groups == channels {
                self.dice.pick(&[1, 1, 1, 2])
            } else {
                self.dice.pick(&[1, 3, 4, 8, 17])
            };
        let [kernel, strides, dilations] = [0, 1, 2].map(|i| windows.map(|window| window[i]));
        let shape = [outputs, channels / groups, kernel[0], kernel[1]];
        let (x, weight) = match self.dice.roll(3) {
            0 => (self.pair(x), self.channel_weight(&shape)),
            _ => (x.to_owned(), self.floats(&shape, 0.5)),
        };
        let mut inputs = vec![x, weight];
        if self.dice.roll(3) > 0 {
            inputs.push(self.floats(&[outputs], 1.0));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let attributes: [(&str, &[i64]); 5] = [
            ("kernel_shape", &kernel),
            ("strides", &strides),
            ("dilations", &dilations),
            ("pads", &pads),
            ("group", &[groups]),
        ];
        (self.node("Conv", &inputs, &attributes), vec![1, outputs, down, across])
    }

    /// A weight of bytes with a scale for each output.
    fn channel_weight(&mut self, dims: &[i64; 4]) -> String {
        let count = dims.iter().product::<i64>();
        let bytes = (0..count).map(|_| (self.dice.roll(255) as i32 - 127) as i8 as u8).collect();
        let weight = self.constant(3, dims, bytes);
        let scales =
            (0..dims[0]).flat_map(|_| (0.003 + 0.002 * self.dice.float().abs()).to_le_bytes()).collect();
        let scales = self.constant(1, &dims[..1], scales);
        self.node("DequantizeLinear", &[&weight, &scales], &[("axis", &[0])])
    }

    fn max_pool(&mut self, (x, dims): (&str, &[i64])) -> Value {
        let (windows, pads, [down, across]) = self.windows(dims, &[0, 1]);
        let [kernel, strides, dilations] = [0, 1, 2].map(|i| windows.map(|window| window[i]));
        let attributes: [(&str, &[i64]); 4] =
            [("kernel_shape", &kernel), ("strides", &strides), ("dilations", &dilations), ("pads", &pads)];
        self.beside |= [0, 1].into_iter().any(|i| {
            let covers = |window: i64, k: i64| {
                (0..dims[2 + i]).contains(&(window * strides[i] + k * dilations[i] - pads[i]))
            };
            (0..[down, across][i]).any(|window| !(0..kernel[i]).any(|k| covers(window, k)))
        });
        (self.node("MaxPool", &[x], &attributes), vec![1, dims[1], down, across])
    }
}
