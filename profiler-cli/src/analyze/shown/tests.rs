use super::*;
use crate::names::stacks::NamedFrame;

/// Returns a frame: of the runtime if its crate is `std` or `alloc`, of a dependency if it is one
/// of three others, and else of the user.
fn frame(function: &str) -> NamedFrame {
    let owner = match function.split("::").next() {
        Some("std" | "alloc") => CodeOwner::Runtime,
        Some("tokio" | "hyper" | "serde") => CodeOwner::Dependency,
        _ => CodeOwner::Own,
    };
    let module = "app".into();
    NamedFrame { function: function.into(), file: None, line: None, is_inlined: false, owner, module }
}

/// Makes stacks of names, each from the innermost frame outwards.
fn stacks(stacks: &[&str]) -> Stacks {
    let frames: Vec<Vec<NamedFrame>> =
        stacks.iter().map(|stack| stack.split(' ').map(frame).collect()).collect();
    Stacks::from_frames(&frames)
}

fn id(at: u32) -> StackId {
    StackId(StackId::FIRST.0 + at)
}

/// Returns the frames as text: a fold as `entry…crate+crate`, and more than one frame as `xN` or
/// `xM-N`.
fn text(
    stacks: &Stacks,
    shown: &ShownStacks,
    frames: impl IntoIterator<Item = (ShownFrame, Times)>,
) -> String {
    let texts = frames.into_iter().map(|(frame, times)| {
        let name = match frame {
            ShownFrame::Single(id) => stacks.frame(id).function.to_string(),
            ShownFrame::Folded(index) => {
                let fold = shown.fold(index);
                let entry = fold.entry.map_or_else(String::new, |id| stacks.frame(id).function.to_string());
                format!("{entry}…{}", shown.crates_of(fold).join("+"))
            }
        };
        match (times.fewest, times.most) {
            (1, 1) => name,
            (fewest, most) if fewest == most => format!("{name}x{most}"),
            (fewest, most) => format!("{name}x{fewest}-{most}"),
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn shown(folding: Folding, names: &[&str]) -> Vec<String> {
    let stacks = stacks(names);
    let shown = ShownStacks::of(&stacks, folding, 10, |_| true);
    (0..names.len() as u32).map(|at| text(&stacks, &shown, shown.frames(shown.stack(id(at))))).collect()
}

#[test]
fn frames_of_the_runtime_are_left_out_unless_all_are_wanted() {
    let names = ["alloc::alloc main", "main std::rt", "alloc::alloc std::rt", "work main"];
    assert_eq!(shown(Folding::Runtime, &names), ["main", "main", "std::rt", "work main"]);
    assert_eq!(shown(Folding::None, &names), names);
    let stacks = stacks(&names);
    let ids = |folding| {
        let shown = ShownStacks::of(&stacks, folding, 10, |_| true);
        (shown.stack(id(0)), shown.stack(id(1)))
    };
    let (first, second) = ids(Folding::Runtime);
    assert_eq!(first, second);
    let (first, second) = ids(Folding::None);
    assert_ne!(first, second);
}

#[test]
fn neighbouring_frames_of_dependencies_are_folded() {
    let names = [
        "alloc::alloc handle hyper::poll std::call tokio::run tokio::start std::rt",
        "serde::grow serde::to_vec handle tokio::run",
        "alloc::alloc serde::to_vec handle tokio::run",
        "serde::visit load serde::from_str main",
    ];
    assert_eq!(
        shown(Folding::Dependencies, &names),
        [
            "handle …tokio+hyperx3",
            // Two stacks that are shown alike are one, with both numbers of frames.
            "serde::to_vec…serdex1-2 handle …tokio",
            "serde::to_vec…serdex1-2 handle …tokio",
            "serde::visit…serde load serde::from_str…serde main",
        ]
    );
    assert_eq!(shown(Folding::Runtime, &names)[1], "serde::grow serde::to_vec handle tokio::run");
}

#[test]
fn a_function_that_own_code_calls_is_one_fold_whatever_it_calls() {
    let names = ["serde::to_vec main", "tokio::read serde::to_vec main", "tokio::read main"];
    assert_eq!(
        shown(Folding::Dependencies, &names),
        [
            "serde::to_vec…serde+tokiox1-2 main",
            "serde::to_vec…serde+tokiox1-2 main",
            "tokio::read…tokio main"
        ]
    );
}

#[test]
fn a_stack_of_dependencies_alone_shows_its_site() {
    let names = ["alloc::alloc tokio::park hyper::poll tokio::run", "tokio::run std::rt", "main tokio::run"];
    assert_eq!(
        shown(Folding::Dependencies, &names),
        ["tokio::park …tokio+hyperx2", "tokio::run", "main …tokio"]
    );
}

#[test]
fn a_recursion_is_shown_once() {
    let names = ["leaf walk walk walk main", "leaf walk main", "walk walk std::drop walk main"];
    assert_eq!(
        shown(Folding::Runtime, &names),
        ["leaf walkx1-3 main", "leaf walkx1-3 main", "walkx1-3 main"],
        "the three stacks share the frames from `walk` outwards"
    );
    assert_eq!(shown(Folding::None, &names[..1]), ["leaf walk walk walk main"]);
}

#[test]
fn a_cycle_of_functions_is_shown_once() {
    // Innermost first: main calls even, even calls odd, odd calls even, and so on.
    let names = ["leaf odd even odd even odd even main", "odd even odd other main"];
    assert_eq!(shown(Folding::Runtime, &names), ["leaf oddx1-3 even main", "odd even odd other main"]);
}

#[test]
fn a_stack_that_is_too_long_keeps_both_ends() {
    let digits = ["0 1 2 3 4 5 6 7 8 9", "0 1 2 3 4 5 6 7 8"];
    let stacks = stacks(&digits);
    let shown = ShownStacks::of(&stacks, Folding::Runtime, 3, |_| true);
    let cut = |at: u32, innermost| {
        let CutStack { inner, omitted, outer } = shown.cut(shown.stack(id(at)), innermost);
        (text(&stacks, &shown, inner), omitted, text(&stacks, &shown, outer))
    };
    assert_eq!(cut(0, 7), (digits[0].to_owned(), 0, String::new()));
    assert_eq!(cut(0, 6), ("0 1 2 3 4 5".to_owned(), 1, "7 8 9".to_owned()));
    assert_eq!(cut(1, 2), ("0 1".to_owned(), 4, "6 7 8".to_owned()));
    assert_eq!(shown.cut(shown.stack(StackId::NONE), 5), CutStack::default());
}

/// A stack that was cut off may consist of one function of the runtime, a million times.
#[test]
fn stacks_of_a_deep_recursion_share_their_frames() {
    const LEVELS: u32 = 300_000;
    let tree = |function: &str| {
        let level = |at: u32| {
            let parent = if at == 0 { StackId::TRUNCATED } else { StackId(StackId::FIRST.0 + at - 1) };
            (parent, vec![frame(function)])
        };
        Stacks::from_tree((0..LEVELS).map(level))
    };
    let stacks = tree("std::drop_in_place");
    let shown = ShownStacks::of(&stacks, Folding::Runtime, 3, |stack| stack >= StackId::FIRST);
    assert_eq!(shown.nodes.len(), LEVELS as usize);
    let CutStack { inner, omitted, outer } = shown.cut(shown.stack(id(LEVELS - 1)), 5);
    assert_eq!((inner.len(), omitted, outer.len()), (5, LEVELS as usize - 8, 3));

    let stacks = tree("walk");
    let shown = ShownStacks::of(&stacks, Folding::Runtime, 3, |stack| stack >= StackId::FIRST);
    let deepest = text(&stacks, &shown, shown.frames(shown.stack(id(LEVELS - 1))));
    assert_eq!((shown.nodes.len(), deepest), (1, format!("walkx1-{LEVELS}")));
}
