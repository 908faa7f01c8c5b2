//! What is in one image: a shape filled with the pattern of its class, on a ground, among blots.

use crate::rng::Rng;

/// Shapes, each filling about the unit circle.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Disc,
    Ring,
    Square,
    Triangle,
    Cross,
}

const SHAPES: [Shape; 5] = [Shape::Cross, Shape::Disc, Shape::Ring, Shape::Square, Shape::Triangle];

/// What a class is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pattern {
    Checks,
    Diamonds,
    Dots,
    Grid,
    Plain,
    Rays,
    Rings,
    StripesFlat,
    StripesSlanted,
    StripesUpright,
}

/// In the order of the alphabet, as the classes are when the set is read back from folders.
pub(super) const PATTERNS: [(Pattern, &str); 10] = [
    (Pattern::Checks, "checks"),
    (Pattern::Diamonds, "diamonds"),
    (Pattern::Dots, "dots"),
    (Pattern::Grid, "grid"),
    (Pattern::Plain, "plain"),
    (Pattern::Rays, "rays"),
    (Pattern::Rings, "rings"),
    (Pattern::StripesFlat, "stripes-flat"),
    (Pattern::StripesSlanted, "stripes-slanted"),
    (Pattern::StripesUpright, "stripes-upright"),
];

pub(super) type Colour = [f64; 3];

/// Everything that is drawn in one image; lengths in 32nds of the image's side.
pub(super) struct Scene {
    shape: Shape,
    pattern: Pattern,
    centre: [f64; 2],
    /// The inverse of turning and stretching: image to shape coordinates.
    to_shape: [[f64; 2]; 2],
    /// The pattern's first axis divided by its period; the second is at a right angle.
    axis: [f64; 2],
    phases: [f64; 2],
    /// The shape's two colours.
    ink: [Colour; 2],
    /// The ground's colours at its two ends, and its direction.
    ground: [Colour; 2],
    slope: [f64; 2],
    blots: Vec<Blot>,
}

struct Blot {
    centre: [f64; 2],
    radius: f64,
    colour: Colour,
}

fn colour(rng: &mut Rng) -> Colour {
    [rng.uniform(), rng.uniform(), rng.uniform()]
}

fn blend(a: Colour, b: Colour, t: f64) -> Colour {
    [0, 1, 2].map(|c| a[c] + (b[c] - a[c]) * t)
}

/// How far apart two colours are, in brightness above all.
fn distance(a: Colour, b: Colour) -> f64 {
    let d = [0, 1, 2].map(|c| a[c] - b[c]);
    let luma = 0.3 * d[0] + 0.6 * d[1] + 0.1 * d[2];
    luma.abs() + 0.25 * d.iter().map(|d| d.abs()).sum::<f64>() / 3.0
}

/// A colour at least `far` from each of the others; the best of 40 if none is.
fn distinct_colour(rng: &mut Rng, others: &[Colour], far: f64) -> Colour {
    let mut best = (-1.0, [0.5; 3]);
    for _ in 0..40 {
        let candidate = colour(rng);
        let nearest = others.iter().map(|o| distance(candidate, *o)).fold(f64::INFINITY, f64::min);
        if nearest > best.0 {
            best = (nearest, candidate);
        }
        if nearest >= far {
            break;
        }
    }
    best.1
}

fn direction(rng: &mut Rng) -> [f64; 2] {
    let angle = rng.range(0.0, std::f64::consts::TAU);
    [libm::cos(angle), libm::sin(angle)]
}

impl Scene {
    pub(super) fn new(label: u32, rng: &mut Rng) -> Scene {
        let (pattern, _) = PATTERNS[label as usize % PATTERNS.len()];
        let shape = SHAPES[rng.below(SHAPES.len())];
        let radius = rng.range(13.0, 19.0);
        let room = (18.0 - radius * 0.9).max(2.0);
        let centre = [16.0 + rng.range(-room, room), 16.0 + rng.range(-room, room)];
        let stretch = rng.range(0.85, 1.18);
        let [cos, sin] = direction(rng);
        let (a, b) = (1.0 / (radius * stretch), stretch / radius);
        let to_shape = [[cos * a, sin * a], [-sin * b, cos * b]];

        let (turn, period) = (rng.range(-0.2, 0.2), rng.range(5.0, 8.0));
        let axis = [libm::cos(turn) / period, libm::sin(turn) / period];
        let phases = [rng.uniform(), rng.uniform()];

        let from = colour(rng);
        let other = colour(rng);
        let ground = [from, blend(from, other, rng.range(0.2, 0.6))];
        let slope = direction(rng).map(|d| d / 45.0);
        let first = distinct_colour(rng, &ground, 0.3);
        let second = distinct_colour(rng, &[ground[0], ground[1], first], 0.3);

        let mut blots = Vec::new();
        for _ in 0..2 + rng.below(4) {
            let radius = rng.range(1.2, 3.2);
            let centre = [rng.range(0.0, 32.0), rng.range(0.0, 32.0)];
            blots.push(Blot { centre, radius, colour: colour(rng) });
        }
        Scene { shape, pattern, centre, to_shape, axis, phases, ink: [first, second], ground, slope, blots }
    }

    /// The colour at a point.
    pub(super) fn at(&self, x: f64, y: f64) -> Colour {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        let u = self.to_shape[0][0] * dx + self.to_shape[0][1] * dy;
        let v = self.to_shape[1][0] * dx + self.to_shape[1][1] * dy;
        if self.shape.holds(u, v) {
            let along = self.axis[0] * dx + self.axis[1] * dy;
            let across = self.axis[0] * dy - self.axis[1] * dx;
            return self.ink[usize::from(self.pattern.marks(along, across, self.phases))];
        }
        for blot in &self.blots {
            let (dx, dy) = (x - blot.centre[0], y - blot.centre[1]);
            if dx * dx + dy * dy < blot.radius * blot.radius {
                return blot.colour;
            }
        }
        let t = (self.slope[0] * (x - 16.0) + self.slope[1] * (y - 16.0) + 0.5).clamp(0.0, 1.0);
        blend(self.ground[0], self.ground[1], t)
    }
}

/// The part behind the point.
fn part(x: f64) -> f64 {
    x - libm::floor(x)
}

impl Pattern {
    /// Whether a point, in periods from the shape's centre, has the second colour.
    fn marks(self, x: f64, y: f64, [first, second]: [f64; 2]) -> bool {
        let half = |t: f64| part(t) >= 0.5;
        let diagonal = std::f64::consts::FRAC_1_SQRT_2;
        match self {
            Pattern::Checks => half(x + first) != half(y + second),
            Pattern::Diamonds => half((x + y) * diagonal + first) != half((x - y) * diagonal + second),
            Pattern::Dots => {
                let (x, y) = (part(x + first) - 0.5, part(y + second) - 0.5);
                x * x + y * y < 0.1
            }
            Pattern::Grid => part(x + first) < 0.3 || part(y + second) < 0.3,
            Pattern::Plain => false,
            Pattern::Rays => half(8.0 * libm::atan2(y, x) / std::f64::consts::TAU + first),
            Pattern::Rings => half(libm::sqrt(x * x + y * y) + first),
            Pattern::StripesFlat => half(y + first),
            Pattern::StripesSlanted => half((x + y) * diagonal + first),
            Pattern::StripesUpright => half(x + first),
        }
    }
}

impl Shape {
    fn holds(self, u: f64, v: f64) -> bool {
        let squared = u * u + v * v;
        match self {
            Shape::Disc => squared < 0.81,
            Shape::Ring => (0.25..1.0).contains(&squared),
            Shape::Square => u.abs().max(v.abs()) < 0.8,
            // The three sides lie 0.55 from the middle; 0.866... is the sine of 60 degrees.
            Shape::Triangle => v < 0.55 && 0.866_025_403_784_438_6 * u.abs() - 0.5 * v < 0.55,
            Shape::Cross => {
                let (u, v) = (u.abs(), v.abs());
                u.min(v) < 0.3 && u.max(v) < 1.0
            }
        }
    }
}
