//! What `ghostlight eval` prints.

use std::io::Write;

use serde_json::{Value, json};

use super::error::CliError;
use crate::eval::{Agreement, Confusion, Metrics, agreement, confusion};
use crate::vision::{NmsOptions, Size};

/// Most classes for which people get the whole confusion table.
const TABLE_CLASSES: usize = 8;
/// Most confusions that people get of more classes.
const LISTED: usize = 10;

/// One engine's numbers.
pub struct Outcomes {
    /// `NAME@HASH`
    pub model: String,
    /// Its kernels.
    pub kernel: String,
    /// The numbers.
    pub metrics: Metrics,
    /// The confusions.
    pub confusion: Confusion,
}

/// The other engine's numbers.
pub struct Comparison {
    /// Its numbers.
    pub other: Outcomes,
    /// How its detections differ.
    pub agreement: Agreement,
}

/// All that is printed.
pub struct Report<'a> {
    /// `data.yaml`
    pub data: String,
    /// Which part of it.
    pub split: &'a str,
    /// The model's input.
    pub input: Size,
    /// Whether pictures were letterboxed into rectangles.
    pub rectangle: bool,
    /// Thresholds of the detections.
    pub options: &'a NmsOptions,
    /// Pictures that could not be read.
    pub failed: usize,
    /// Class names.
    pub classes: &'a [String],
    /// The engine that was asked for.
    pub own: Outcomes,
    /// Another one.
    pub comparison: Option<Comparison>,
}

/// Names and getters of the numbers that are compared.
type Number = (&'static str, &'static str, fn(&Metrics) -> Option<f64>);
const NUMBERS: [Number; 10] = [
    ("mAP50-95", "map50_95", |m| m.map50_95),
    ("mAP50", "map50", |m| m.map50),
    ("mAP75", "map75", |m| m.map75),
    ("mAP small", "map_small", |m| m.map_small),
    ("mAP medium", "map_medium", |m| m.map_medium),
    ("mAP large", "map_large", |m| m.map_large),
    ("mAP50-95 (Ultralytics)", "ultralytics_map50_95", |m| m.ultralytics_map50_95),
    ("mAP50 (Ultralytics)", "ultralytics_map50", |m| m.ultralytics_map50),
    ("precision", "precision", |m| m.precision),
    ("recall", "recall", |m| m.recall),
];

impl Report<'_> {
    /// One JSON object.
    pub fn write_json(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let mut object = json!({
            "schema": "ghostlight.eval/1",
            "data": self.data,
            "split": self.split,
            "imgsz": [self.input.height, self.input.width],
            "fit": if self.rectangle { "rectangle" } else { "square" },
            // As written: 0.001 in f32 has more digits in f64.
            "conf": decimal(self.options.confidence),
            "iou": decimal(self.options.iou),
            "max_det": self.options.max_detections,
            "failed_pictures": self.failed,
            "model": self.own.model,
            "kernel": self.own.kernel,
            "metrics": self.metrics(&self.own.metrics)?,
            "confusion": self.confusions(&self.own.confusion),
        });
        if let Some(Comparison { other, agreement }) = &self.comparison {
            object["reference"] = json!({
                "model": other.model,
                "metrics": self.metrics(&other.metrics)?,
                "confusion": self.confusions(&other.confusion),
            });
            let difference = NUMBERS.iter().map(|(_, key, number)| {
                let both = number(&self.own.metrics).zip(number(&other.metrics));
                ((*key).to_owned(), json!(both.map(|(a, b)| a - b)))
            });
            object["difference"] = Value::Object(difference.collect());
            object["agreement"] = value(agreement)?;
        }
        Ok(writeln!(out, "{object}")?)
    }

    fn metrics(&self, metrics: &Metrics) -> Result<Value, CliError> {
        let mut object = value(metrics)?;
        for (class, scores) in object["classes"].as_array_mut().into_iter().flatten().zip(&metrics.classes) {
            class["class"] = self.name(Some(scores.class_id)).into();
        }
        Ok(object)
    }

    /// `null` is background.
    fn confusions(&self, confusion: &Confusion) -> Value {
        let name = |class: Option<usize>| class.map(|_| self.name(class));
        let entry =
            |(found, actual, count)| json!({"found": name(found), "actual": name(actual), "count": count});
        confusion.entries().map(entry).collect()
    }

    fn name(&self, class: Option<usize>) -> &str {
        class.map_or("background", |id| self.classes.get(id).map_or("?", String::as_str))
    }

    /// Tables; numbers as percent.
    pub fn write_text(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let (own, m) = (&self.own, &self.own.metrics);
        let fit = if self.rectangle { "rectangles within" } else { "square letterbox" };
        writeln!(
            out,
            "data   {}, {}: {} pictures, {} objects",
            self.data, self.split, m.pictures, m.instances
        )?;
        if self.failed > 0 {
            writeln!(out, "       {} more pictures could not be read", self.failed)?;
        }
        writeln!(out, "model  {}, {}, {fit} {}", own.model, own.kernel, self.input)?;
        self.write_classes(out)?;
        if let Some(confidence) = m.confidence {
            writeln!(out, "P and R at confidence {confidence:.3}, where the mean F1 is best")?;
        }
        match &self.comparison {
            None => self.write_numbers(out)?,
            Some(comparison) => self.write_comparison(out, comparison)?,
        }
        writeln!(
            out,
            "\nconfusions (confidence over {}, IoU over {})",
            confusion::CONFIDENCE,
            confusion::IOU
        )?;
        match self.classes.len() <= TABLE_CLASSES {
            true => self.write_confusion_table(out),
            false => self.write_confusion_list(out),
        }
    }

    fn write_classes(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let m = &self.own.metrics;
        let names = m.classes.iter().map(|c| self.name(Some(c.class_id)).chars().count());
        let widest = names.max().unwrap_or(0).max(5);
        let heads = ["pictures", "objects", "P", "R", "mAP50", "mAP50-95"];
        let [a, b, c, d, e, f] = heads;
        writeln!(out, "\n{:widest$}  {a:>8}  {b:>8}  {c:>5}  {d:>5}  {e:>5}  {f:>8}", "class")?;
        let all = [m.precision, m.recall, m.map50, m.map50_95].map(percent);
        let [p, r, ap50, ap] = all;
        let (pictures, objects) = (m.pictures, m.instances);
        writeln!(out, "{:widest$}  {pictures:>8}  {objects:>8}  {p:>5}  {r:>5}  {ap50:>5}  {ap:>8}", "all")?;
        for class in &m.classes {
            let name = self.name(Some(class.class_id));
            let numbers = [class.precision, class.recall, class.map50, class.map50_95];
            let [p, r, ap50, ap] = numbers.map(|n| percent(Some(n)));
            let (pictures, objects) = (class.pictures, class.instances);
            writeln!(out, "{name:widest$}  {pictures:>8}  {objects:>8}  {p:>5}  {r:>5}  {ap50:>5}  {ap:>8}")?;
        }
        Ok(())
    }

    fn write_numbers(&self, out: &mut dyn Write) -> Result<(), CliError> {
        writeln!(out)?;
        for (name, _, number) in NUMBERS {
            writeln!(out, "{name:22}  {:>5}", percent(number(&self.own.metrics)))?;
        }
        Ok(())
    }

    fn write_comparison(&self, out: &mut dyn Write, comparison: &Comparison) -> Result<(), CliError> {
        let (other, a) = (&comparison.other, &comparison.agreement);
        writeln!(out, "\n{:22}  {:>5}  {:>9}  {:>10}", "", "model", "reference", "difference")?;
        for (name, _, number) in NUMBERS {
            let (own, other) = (number(&self.own.metrics), number(&other.metrics));
            let gap = own.zip(other).map_or("-".into(), |(a, b)| format!("{:+.1}", 100.0 * (a - b)));
            writeln!(out, "{name:22}  {:>5}  {:>9}  {gap:>10}", percent(own), percent(other))?;
        }
        let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.4}"));
        writeln!(
            out,
            "\n{} pairs of detections (one more confident than {}, IoU from {})",
            a.pairs,
            agreement::CONFIDENCE,
            agreement::IOU
        )?;
        let (error, class) = (number(a.mean_confidence_error), percent(a.other_class));
        writeln!(out, "class error  mean |difference of confidence| {error}, {class} % have another class")?;
        writeln!(out, "box error    mean IoU {}", number(a.mean_iou))?;
        Ok(writeln!(out, "unpaired     {} of the model, {} of the reference", a.only_first, a.only_second)?)
    }

    /// Rows are what was found, columns what is there.
    fn write_confusion_table(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let classes: Vec<Option<usize>> = (0..self.classes.len()).map(Some).chain([None]).collect();
        let widest = classes.iter().map(|&c| self.name(c).chars().count()).max().unwrap_or(0).max(12);
        write!(out, "{:widest$}", "found \\ true")?;
        for &class in &classes {
            write!(out, "  {:>8}", self.name(class))?;
        }
        writeln!(out)?;
        for &found in &classes {
            write!(out, "{:widest$}", self.name(found))?;
            for &actual in &classes {
                let width = self.name(actual).chars().count().max(8);
                match (found, actual) {
                    (None, None) => write!(out, "  {:>width$}", "-")?,
                    _ => write!(out, "  {:>width$}", self.own.confusion.count(found, actual))?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_confusion_list(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let wrong = |found: &Option<usize>, actual: &Option<usize>| {
            found.is_some() && actual.is_some() && found != actual
        };
        let mut most: Vec<_> = self.own.confusion.entries().filter(|(f, a, _)| wrong(f, a)).collect();
        most.sort_by_key(|&(.., count)| std::cmp::Reverse(count));
        let total = |keep: fn(Option<usize>, Option<usize>) -> bool| -> usize {
            self.own.confusion.entries().filter(|&(f, a, _)| keep(f, a)).map(|(.., count)| count).sum()
        };
        writeln!(
            out,
            "{} right, {} of another class, {} found where nothing is, {} not found",
            total(|f, a| f == a),
            total(|f, a| f.is_some() && a.is_some() && f != a),
            total(|_, a| a.is_none()),
            total(|f, _| f.is_none())
        )?;
        for &(found, actual, count) in most.iter().take(LISTED) {
            writeln!(out, "{count:>6}  {} taken for {}", self.name(actual), self.name(found))?;
        }
        Ok(())
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{:.1}", 100.0 * value))
}

fn value(of: &impl serde::Serialize) -> Result<Value, CliError> {
    serde_json::to_value(of).map_err(|error| CliError::Internal(error.to_string()))
}

/// The number that its shortest decimal text means.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
