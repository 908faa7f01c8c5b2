//! A bank as a file: what the model said of each image, as floats. What follows from that is computed when it is opened.

use std::path::Path;

use super::{Class, ClassBank, Example, MAX_CLASSES, MAX_EXAMPLES, MAX_NAME, MAX_NEGATIVES, check_name};
use crate::error::Result;
use crate::load::Model;
use crate::store::{Kind, Reader, Writer};
use crate::trust::Trust;

const KIND: Kind = Kind { name: "class bank", magic: *b"smaltibk", version: 1, max_bytes: 64 << 20 };

impl ClassBank {
    /// Reads the bank of a model. Of what models must show, `trust` asks banks for the signature.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) for a file that cannot be read; [`Error::Refused`](crate::Error::Refused) for one
    /// that is damaged, not signed as asked, or of another model; [`Error::Usage`](crate::Error::Usage) for a model that
    /// gives no embedding.
    pub fn open(path: impl AsRef<Path>, model: &Model, trust: &Trust) -> Result<ClassBank> {
        ClassBank::from_bytes(&KIND.read(path.as_ref(), trust)?, model)
    }

    /// As [`ClassBank::open`], of bytes in memory.
    ///
    /// # Errors
    /// See there.
    pub fn from_bytes(bytes: &[u8], model: &Model) -> Result<ClassBank> {
        let mut bank = ClassBank::new(model)?;
        let mut reader = KIND.unseal(model.digest(), bytes)?;
        let dim = reader.u32("values of an embedding")? as usize;
        if dim != bank.dim {
            return Err(reader.refused("values of an embedding", dim.to_string(), &format!("{}", bank.dim)));
        }
        let false_accepts = reader.float("false accepts")?;
        if !(0.0..1.0).contains(&false_accepts) {
            return Err(reader.refused("false accepts", false_accepts.to_string(), "0 to 1"));
        }
        let (mut classes, mut left) = (Vec::<Class>::new(), MAX_EXAMPLES);
        for _ in 0..reader.count(MAX_CLASSES, "number of classes")? {
            let name = reader.text(MAX_NAME, "name of a class")?;
            if check_name(&name).is_err() || classes.iter().any(|class| class.name == name) {
                return Err(reader.refused("name of a class", format!("`{name}`"), "a name, once"));
            }
            let examples = examples(&mut reader, left, dim)?;
            left -= examples.len();
            classes.push(Class { name, examples });
        }
        let negatives = examples(&mut reader, MAX_NEGATIVES, dim)?;
        reader.end()?;
        bank.replace(classes, negatives, false_accepts);
        Ok(bank)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.count(self.dim);
        writer.float(self.false_accepts);
        writer.count(self.classes.len());
        let put = |writer: &mut Writer, examples: &[Example]| {
            writer.count(examples.len());
            for example in examples {
                writer.float(example.best);
                writer.floats(&example.embedding);
            }
        };
        for class in &self.classes {
            writer.text(&class.name);
            put(&mut writer, &class.examples);
        }
        put(&mut writer, &self.negatives);
        KIND.seal(self.model, writer)
    }

    /// Writes the file. A crash at any moment leaves the old one or the new one.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), and [`Error::Usage`](crate::Error::Usage) for a bank that is too large.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        KIND.save(path.as_ref(), &self.to_bytes())
    }
}

/// Images, at most so many.
fn examples(reader: &mut Reader<'_>, most: usize, dim: usize) -> Result<Vec<Example>> {
    let count = reader.count(most, "number of images")?;
    let mut examples = Vec::new();
    for _ in 0..count {
        let best = reader.float("logit")?;
        examples.push(Example { best, embedding: reader.floats(dim, "embedding")? });
    }
    Ok(examples)
}
