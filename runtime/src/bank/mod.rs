//! Classes learned from a few images each, beside those of a model, without training.
//!
//! A [`ClassBank`] keeps the model's embeddings of the images. A new image is held against them by cosine k-NN ([`space`]),
//! and what comes of it is one more logit for each learned class, beside the model's own, under one softmax: the most
//! probable class is the answer, old or new. How alike is alike enough is calibrated ([`calibrate`]), on images of
//! anything else where there are some ("negatives"), so that no more of them than a stated share is taken for a learned
//! class; else on the bank itself. Of a model that gives nothing but an embedding, what is like no learned class is
//! `unknown`.

mod calibrate;
mod file;
mod space;

pub use calibrate::Calibration;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::load::{Model, class_of};
use crate::session::{Output, log_probabilities, no_embedding, softmax};
use space::{Neighbours, Space};

/// The most classes of a bank.
const MAX_CLASSES: usize = 256;
/// The most images of a bank.
const MAX_EXAMPLES: usize = 4096;
/// The most negatives; of more, those before are spread out evenly.
pub const MAX_NEGATIVES: usize = 512;
/// The most bytes of a class's name.
const MAX_NAME: usize = 256;

/// The share of negatives that may be taken for a learned class, where nothing else is said.
pub const FALSE_ACCEPTS: f32 = 0.01;

/// The answer where a model has no classes of its own.
const UNKNOWN: &str = "unknown";

/// One image: what the model said of it.
#[derive(Clone, Debug, PartialEq)]
struct Example {
    /// As the model gives it.
    embedding: Vec<f32>,
    /// The model's own best logit; 0 where it has no classes.
    best: f32,
}

/// A learned class.
#[derive(Clone, Debug, PartialEq)]
struct Class {
    name: String,
    examples: Vec<Example>,
}

/// Learned classes of one model.
#[derive(Clone, Debug)]
pub struct ClassBank {
    model: Digest,
    dim: usize,
    /// The model's labels, or [`UNKNOWN`] alone, then the learned ones that are not among them.
    labels: Vec<String>,
    /// How many of the labels are not learned.
    own: usize,
    classes: Vec<Class>,
    negatives: Vec<Example>,
    false_accepts: f32,
    /// What follows from these.
    space: Space,
    calibration: Calibration,
}

/// An answer's buffers; used again, they do not grow.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// All labels by falling probability: number among [`ClassBank::labels`], probability.
    pub ranked: Vec<(usize, f32)>,
    logits: Vec<f32>,
    query: Vec<f32>,
    neighbours: Neighbours,
}

impl ClassBank {
    /// A bank without classes.
    ///
    /// # Errors
    /// [`Error::Usage`] for a model that gives no embedding.
    pub fn new(model: &Model) -> Result<ClassBank> {
        let dim = model.embedding_dim();
        if dim == 0 {
            return Err(no_embedding());
        }
        let labels = if model.embeds() { vec![UNKNOWN.into()] } else { model.labels().to_vec() };
        Ok(ClassBank {
            model: model.digest(),
            dim,
            own: labels.len(),
            labels,
            classes: Vec::new(),
            negatives: Vec::new(),
            false_accepts: FALSE_ACCEPTS,
            space: Space::default(),
            calibration: Calibration::default(),
        })
    }

    /// Names and numbers of images of the learned classes, in the order in which they were learned.
    pub fn classes(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        self.classes.iter().map(|class| (&*class.name, class.examples.len()))
    }

    /// All labels of answers: the model's own, or `unknown` where it has none, then the learned ones that are not among
    /// them.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The number of a label among [`ClassBank::labels`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a label that is not among them.
    pub fn class(&self, label: &str) -> Result<usize> {
        class_of(label, &self.labels)
    }

    /// Whether a label is a learned class.
    pub fn is_learned(&self, label: &str) -> bool {
        self.classes.iter().any(|class| class.name == label)
    }

    /// Images of none of the learned classes, on which the bank is calibrated.
    pub fn negatives(&self) -> usize {
        self.negatives.len()
    }

    /// The share of negatives that may be taken for a learned class.
    pub fn false_accepts(&self) -> f32 {
        self.false_accepts
    }

    /// What calibration found.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Adds images of one class, given by the model's answers to them; how many are new, as the same image counts once.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is empty or too long, and for a full bank; [`Error::Data`] for an embedding of zeros
    /// or not finite. The bank is then what it was.
    pub fn add(&mut self, name: &str, model: &Model, answers: &[Output]) -> Result<usize> {
        check_name(name)?;
        let examples = self.examples(model, answers)?;
        let mut classes = self.classes.clone();
        let place = classes.iter().position(|class| class.name == name).unwrap_or(classes.len());
        if place == classes.len() {
            classes.push(Class { name: name.into(), examples: Vec::new() });
        }
        let known = &mut classes[place].examples;
        let before = known.len();
        for example in examples {
            if !known.iter().any(|known| known.embedding == example.embedding) {
                known.push(example);
            }
        }
        let added = known.len() - before;
        let count: usize = classes.iter().map(|class| class.examples.len()).sum();
        if classes.len() > MAX_CLASSES || count > MAX_EXAMPLES {
            let most = format!("at most {MAX_CLASSES} classes and {MAX_EXAMPLES} images are kept");
            return Err(Error::Usage(format!("{count} images of {} classes: {most}", classes.len())));
        }
        self.replace(classes, self.negatives.clone(), self.false_accepts);
        Ok(added)
    }

    /// Adds negatives, images of none of the learned classes, and says which share of such may be taken for one.
    ///
    /// # Errors
    /// [`Error::Usage`] for a share that is not between 0 and 1; [`Error::Data`] as [`ClassBank::add`].
    pub fn add_negatives(&mut self, model: &Model, answers: &[Output], false_accepts: f32) -> Result<()> {
        if !(0.0..1.0).contains(&false_accepts) {
            return Err(Error::Usage(format!("false accepts {false_accepts}: expected 0 to 1, below 1")));
        }
        let mut negatives = self.negatives.clone();
        for example in self.examples(model, answers)? {
            if !negatives.iter().any(|known| known.embedding == example.embedding) {
                negatives.push(example);
            }
        }
        let (count, kept) = (negatives.len(), negatives.len().min(MAX_NEGATIVES));
        let negatives = (0..kept).filter_map(|i| negatives.get(i * count / kept)).cloned().collect();
        self.replace(self.classes.clone(), negatives, false_accepts);
        Ok(())
    }

    /// Forgets a class; how many images it had.
    ///
    /// # Errors
    /// [`Error::Usage`] for a class that was not learned.
    pub fn remove(&mut self, name: &str) -> Result<usize> {
        let place = self.place(name)?;
        let mut classes = self.classes.clone();
        let removed = classes.remove(place);
        self.replace(classes, self.negatives.clone(), self.false_accepts);
        Ok(removed.examples.len())
    }

    /// Forgets the last image of a class, and with its only one the class; how many images are left.
    ///
    /// # Errors
    /// [`Error::Usage`] for a class that was not learned.
    pub fn remove_last(&mut self, name: &str) -> Result<usize> {
        let place = self.place(name)?;
        let mut classes = self.classes.clone();
        classes[place].examples.pop();
        let left = classes[place].examples.len();
        classes.retain(|class| !class.examples.is_empty());
        self.replace(classes, self.negatives.clone(), self.false_accepts);
        Ok(left)
    }

    /// The number of a learned class.
    fn place(&self, name: &str) -> Result<usize> {
        self.classes.iter().position(|class| class.name == name).ok_or_else(|| {
            let known: Vec<_> = self.classes().take(8).map(|(name, _)| format!("`{name}`")).collect();
            let known = if known.is_empty() { "nothing was".into() } else { known.join(", ") };
            Error::Usage(format!("the class `{name}` was not learned; learned: {known}"))
        })
    }

    /// Answers an image by the model's answer to it.
    ///
    /// # Errors
    /// [`Error::Usage`] for a model without the embedding that the bank was made with, [`Error::Data`] for an embedding of
    /// zeros or not finite.
    pub fn answer_into(&self, model: &Model, output: &Output, answer: &mut Answer) -> Result<()> {
        let embedding = self.embedding(model, output)?;
        let Answer { ranked, logits, query, neighbours } = answer;
        logits.clear();
        match model.embeds() {
            true => logits.push(0.0),
            false => logits.extend(log_probabilities(model, &output.logits)),
        }
        logits.resize(self.labels.len(), f32::NEG_INFINITY);
        if !self.space.map(embedding, query) {
            return Err(alike_nothing());
        }
        for (c, class) in self.classes.iter().enumerate() {
            let similarity = self.space.similarity(query, c, None, neighbours);
            let logit = space::SHARPNESS * similarity - self.calibration.offset;
            if let Some(place) = self.labels.iter().position(|label| *label == class.name) {
                logits[place] = logits[place].max(logit);
            }
        }
        ranked.clear();
        ranked.extend(softmax(logits).enumerate());
        ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Ok(())
    }

    /// An answer's buffers, large enough.
    pub fn answer(&self) -> Answer {
        let (labels, most) = (self.labels.len(), self.classes().map(|(_, count)| count).max().unwrap_or(0));
        Answer {
            ranked: Vec::with_capacity(labels),
            logits: Vec::with_capacity(labels),
            query: Vec::with_capacity(self.dim),
            neighbours: Neighbours::new(most, self.dim),
        }
    }

    /// An upper bound of the bytes of heap that opening the bank and one answer take.
    pub fn memory_bound(&self) -> usize {
        let count: usize = self.classes().map(|(_, count)| count).sum();
        let negatives = self.negatives();
        // Each image as it is and mapped; of the negatives, all in a row while the space is made.
        let floats = self.dim * (2 * (count + negatives) + 4) + 4 * count;
        let names: usize = self.labels.iter().map(|label| 3 * label.len() + 128).sum();
        floats * size_of::<f32>()
            + 2 * (count + negatives) * size_of::<Example>()
            + self.space.bytes()
            + names
    }

    /// The embedding in a model's answer.
    fn embedding<'a>(&self, model: &Model, output: &'a Output) -> Result<&'a [f32]> {
        if model.digest() != self.model {
            return Err(Error::Usage("a class bank of another model".into()));
        }
        model.embedding_of(output)
    }

    fn examples(&self, model: &Model, answers: &[Output]) -> Result<Vec<Example>> {
        let example = |output: &Output| {
            let embedding = self.embedding(model, output)?.to_vec();
            if embedding.iter().all(|&value| value == 0.0) {
                return Err(alike_nothing());
            }
            let best = match model.embeds() {
                true => 0.0,
                false => log_probabilities(model, &output.logits).fold(f32::NEG_INFINITY, f32::max),
            };
            Ok(Example { embedding, best })
        };
        answers.iter().map(example).collect()
    }

    /// Takes on other content, and what follows from it.
    fn replace(&mut self, classes: Vec<Class>, negatives: Vec<Example>, false_accepts: f32) {
        let space = Space::new(&classes, &negatives, self.dim);
        self.calibration = calibrate::calibrate(&space, &classes, &negatives, false_accepts);
        self.labels.truncate(self.own);
        for class in &classes {
            if !self.labels.contains(&class.name) {
                self.labels.push(class.name.clone());
            }
        }
        (self.space, self.classes, self.negatives) = (space, classes, negatives);
        self.false_accepts = false_accepts;
    }
}

fn alike_nothing() -> Error {
    Error::data("image", "the model's embedding of it is zero, which is like nothing")
}

/// Refuses a name that no label can be.
fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() || name.len() > MAX_NAME {
        let found = name.len();
        return Err(Error::Usage(format!(
            "a class's name of {found} bytes: expected 1 to {MAX_NAME}, not all blank"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
