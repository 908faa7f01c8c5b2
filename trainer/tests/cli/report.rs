//! `smalti report`: one page about runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use smalti_trainer::run::Owner;

use crate::support::{Folder, read};

/// A page that is well-formed and loads nothing: its sections' names.
fn check(page: &Path) -> (String, Vec<String>) {
    let html = read(page);
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let tree = roxmltree::Document::parse_with_options(&html, options)
        .unwrap_or_else(|why| panic!("{}: {why}", page.display()));
    let nodes = || tree.descendants().filter(|node| node.is_element());
    for node in nodes() {
        for attribute in node.attributes().filter(|a| ["src", "href", "srcset", "action"].contains(&a.name()))
        {
            let value = attribute.value();
            assert!(value.starts_with("data:image/jpeg;base64,") || value.starts_with('#'), "{value}");
        }
        if node.has_tag_name("img") {
            assert!(node.attribute("alt").is_some_and(|alt| !alt.is_empty()), "{node:?}");
        }
        assert!(!node.has_tag_name("link"), "{node:?}");
    }
    assert!(nodes().filter(|node| node.has_tag_name("script")).count() <= 1, "a name has become a script");
    assert_eq!(nodes().filter(|node| node.has_tag_name("h1")).count(), 1);
    // Headings go down by one level at a time.
    let levels: Vec<u8> =
        nodes().filter_map(|node| node.tag_name().name().strip_prefix('h')?.parse().ok()).collect();
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    let ids: Vec<&str> = nodes().filter_map(|node| node.attribute("id")).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    let links = nodes().filter_map(|node| node.attribute("href")).filter_map(|href| href.strip_prefix('#'));
    links.for_each(|link| assert!(ids.contains(&link), "{link} in {ids:?}"));
    // Pictures may hold any letters.
    let words: String = html
        .split("data:image/jpeg;base64,")
        .map(|part| part.split_once('"').map_or(part, |(_, rest)| rest))
        .collect();
    for what in ["http:", "https:", "url(h", "@import", "NaN"] {
        assert!(!words.contains(what), "{what} in {}", page.display());
    }
    let sections =
        nodes().filter(|node| node.has_tag_name("section")).filter_map(|node| node.attribute("id"));
    let sections = sections.map(str::to_owned).collect();
    (html, sections)
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => _ = found.insert(path),
        }
    }
    found
}

#[test]
fn a_training_ends_with_a_page_that_has_every_section_and_escapes_every_name() {
    let folder = Folder::with_data();
    let class = std::fs::read_dir(folder.path("data/train")).unwrap().flatten().next().unwrap().file_name();
    let hostile = "<script>alert(1)<&script>";
    for split in ["train", "test"] {
        let from = folder.path("data").join(split).join(&class);
        let image = std::fs::read_dir(&from).unwrap().flatten().next().unwrap().path();
        std::fs::rename(&image, from.join("\"><script>.png")).unwrap();
        std::fs::rename(&from, from.with_file_name(hostile)).unwrap();
    }
    let args = ["train", "data", "--budget=6s", "--start=photos-nano", "--img-size=64", "--labels=20", "-t2"];
    let done = folder.run(&[&args[..], &["--out=out"]].concat()).ok();
    assert!(
        done.err.contains("out/report.html") && done.err.lines().last().unwrap().starts_with("next: "),
        "{}",
        done.err
    );
    let (html, sections) = check(&folder.path("out/report.html"));
    for id in ["accuracy", "map", "candidates", "curves", "data", "device", "card", "settings"] {
        assert!(sections.iter().any(|section| section == id), "{id} in {sections:?}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)&lt;&amp;script&gt;") && !html.contains("<script>alert"));
    assert!(!html.contains("http-equiv"), "the run has ended");

    let before = files(folder.0.path());
    let again = folder.run(&["report", "out", "-t2"]).ok();
    assert_eq!(again.out.trim(), "out/report.html");
    let (html, _) = check(&folder.path("out/report.html"));
    assert!(html.contains("of 20 test images"), "those of the training: {html}");
    assert_eq!(files(folder.0.path()), before, "nothing but the page is written");

    let found =
        folder.run(&["report", "out", "--json", "-o=other.html", "-t2"]).json(&["runs", "report", "curves"]);
    let run = &found["runs"][0];
    let report: serde_json::Value = serde_json::from_str(&read(&folder.path("out/report.json"))).unwrap();
    assert_eq!(run["headline"]["accuracy"], report["accuracy"]);
    assert_eq!(
        run["answers"]["evaluation"]["accuracy"], report["accuracy"],
        "the page's model is the one that was measured"
    );
    assert!(!run["candidates"].as_array().unwrap().is_empty());
    assert_eq!(run["data"]["labelled"].as_u64(), Some(20));
    check(&folder.path("other.html"));

    let text = folder.run(&["report", "out", "--text", "-t2"]).ok();
    assert!(
        text.out.contains("accuracy") && text.out.contains('▁') && text.out.contains("next: smalti-run"),
        "{}",
        text.out
    );
}

#[test]
fn runs_of_each_kind_have_a_page_and_several_stand_side_by_side() {
    let folder = Folder::with_data();
    folder.pretrained("pre");
    folder.tiny("finetune", &["--data=data", "--init=pre", "--labels=20", "--val=50%", "--out=fine"]).ok();
    folder.tiny("distil", &["--data=data", "--teacher=pre", "--crops=1", "--out=student"]).ok();
    for (run, ids) in [
        ("pre", &["curves", "reconstructions", "map", "data", "settings", "left-out"][..]),
        ("fine", &["accuracy", "curves", "map", "data", "settings", "left-out"]),
        ("student", &["curves", "map", "data", "settings"]),
    ] {
        folder.run(&["report", run, "-t2"]).ok();
        let (html, sections) = check(&folder.path(run).join("report.html"));
        for id in ids {
            assert!(sections.iter().any(|section| section == id), "{run}: {id} in {sections:?}");
        }
        assert!(
            html.contains("smalti finetune") || html.contains("smalti export"),
            "{run} says what is next"
        );
    }
    let found = folder.run(&["report", "pre", "fine", "student", "--json", "-t2"]).json(&["runs"]);
    assert_eq!((found["report"].as_str(), found["runs"].as_array().unwrap().len()), (Some("report.html"), 3));
    let (html, sections) = check(&folder.path("report.html"));
    assert_eq!(sections, ["compared"]);
    assert!(
        ["pre", "fine", "student"]
            .iter()
            .all(|run| html.contains(&format!("<th scope=\"row\">{run}<small>")))
    );
    // A page belongs to its run.
    folder.pretrained("other");
    std::fs::write(folder.path("other/report.html"), "mine").unwrap();
    folder.run(&["report", "other", "-t2"]).fails(2, &["other/report.html", "-o"]);
    assert_eq!(read(&folder.path("other/report.html")), "mine");
    folder.tiny("pretrain", &["--data=data", "--dec-dim=8", "--out=pre", "--overwrite"]).ok();
    assert!(!folder.path("pre/report.html").exists());
}

#[test]
fn what_is_not_there_is_left_out_with_the_reason() {
    let folder = Folder::with_data();
    folder.tiny("finetune", &["--data=data", "--init=scratch", "--out=fine"]).ok();
    std::fs::rename(folder.path("data"), folder.path("moved")).unwrap();
    let metrics = folder.path("fine/metrics.jsonl");
    std::fs::write(&metrics, read(&metrics) + "{\"step\": 7, \"lo\n").unwrap();
    folder.run(&["report", "fine", "-t2"]).ok();
    let (html, sections) = check(&folder.path("fine/report.html"));
    assert_eq!(sections, ["curves", "settings", "left-out"]);
    assert!(
        html.contains("data: is not there now") && html.contains("1 damaged line of metrics.jsonl"),
        "{html}"
    );
    folder.run(&["report", "fine", "--data=moved", "-t2"]).ok();
    let (_, sections) = check(&folder.path("fine/report.html"));
    assert!(sections.iter().any(|section| section == "accuracy"), "{sections:?}");
    std::fs::write(folder.path("fine/checkpoints/last.safetensors"), "torn").unwrap();
    folder.run(&["report", "fine", "--data=moved", "-t2"]).ok();
    let (html, sections) = check(&folder.path("fine/report.html"));
    assert!(
        sections.iter().any(|section| section == "data") && html.contains("last.safetensors"),
        "{sections:?}"
    );

    folder.run(&["report", "moved", "-t2"]).fails(5, &["moved", "nothing to report on"]);
    folder.run(&["report"]).fails(2, &["RUN"]);
    folder.run(&["report", "fine", "--output=no/such/page.html", "-t2"]).fails(6, &["no/such"]);
}

#[test]
fn following_ends_with_the_run() {
    let folder = Folder::with_data();
    folder.pretrained("pre");
    let at_work = Owner::resume(&folder.path("pre"), "pretrain", &[]).unwrap();
    let mut follower =
        folder.command(&["report", "pre", "--follow", "-t1"]).stdout(Stdio::piped()).spawn().unwrap();
    let page = folder.path("pre/report.html");
    let until = Instant::now() + Duration::from_secs(60);
    while !page.exists() {
        assert!(Instant::now() < until && follower.try_wait().unwrap().is_none(), "no page appears");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (html, sections) = check(&page);
    assert!(html.contains("http-equiv=\"refresh\"") && html.contains("The run is at work"));
    assert!(sections.contains(&"curves".to_owned()) && !sections.contains(&"map".to_owned()), "{sections:?}");
    assert!(follower.try_wait().unwrap().is_none(), "it follows");
    drop(at_work);
    assert!(follower.wait().unwrap().success());
    let (html, sections) = check(&page);
    assert!(!html.contains("http-equiv") && sections.contains(&"map".to_owned()), "{sections:?}");
}
