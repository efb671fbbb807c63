//! Whatever happened to it, a store is what its files say.

use super::*;

/// A step of a history: an entity of ten is changed in, or moved to, one of three files; or a file goes.
#[derive(Clone, Debug)]
enum Step {
    Set { file: usize, id: usize, parents: Vec<usize>, version: u8, move_there: bool },
    Remove { file: usize, id: usize },
    Drop { file: usize },
    Nothing,
}

fn step() -> impl Strategy<Value = Step> {
    let (file, id) = (0usize..3, 0usize..10);
    // Mostly upwards, so that most histories are hierarchies most of the time.
    let set = (file.clone(), id.clone(), proptest::collection::vec(0usize..12, 0..3), 0u8..3, any::<bool>(), 0u8..8);
    prop_oneof![
        12 => set.prop_map(|(file, id, parents, version, move_there, any)| {
            let parents = parents.into_iter().filter(|parent| any == 0 || (*parent < id)).collect();
            Step::Set { file, id, parents, version, move_there: move_there || any > 0 }
        }),
        3 => (file.clone(), id).prop_map(|(file, id)| Step::Remove { file, id }),
        1 => file.prop_map(|file| Step::Drop { file }),
        1 => Just(Step::Nothing),
    ]
}

const FILES: [&str; 3] = ["a", "b", "c"];

/// The files of a bundle: the text of each entity, by its id.
type Model = [BTreeMap<usize, String>; 3];

/// Ten folders in one another.
fn start() -> Model {
    let mut model = Model::default();
    for id in 0..10usize {
        let parents = id.checked_sub(1).into_iter().collect();
        change(&mut model, &Step::Set { file: id % 3, id, parents, version: 0, move_there: false });
    }
    model
}

fn change(model: &mut Model, step: &Step) {
    match step {
        Step::Set { file, id, parents, version, move_there } => {
            if *move_there {
                model.iter_mut().for_each(|file| drop(file.remove(id)));
            }
            let parents: Vec<Json> = parents.iter().map(|id| json!({"type": "Folder", "id": id.to_string()})).collect();
            let element = json!({"uid": {"type": "Folder", "id": id.to_string()}, "attrs": {"size": version}, "parents": parents});
            model[*file].insert(*id, element.to_string());
        }
        Step::Remove { file, id } => drop(model[*file].remove(id)),
        Step::Drop { file } => model[*file].clear(),
        Step::Nothing => {}
    }
}

/// A file without entities is sometimes there, and sometimes not.
fn texts(model: &Model, with_empty: bool) -> Vec<(&'static str, String)> {
    let files = FILES.into_iter().zip(model).filter(|(_, entities)| with_empty || !entities.is_empty());
    files
        .map(|(name, entities)| (name, format!("[{}]", entities.values().cloned().collect::<Vec<_>>().join(",\n"))))
        .collect()
}

/// What a store is, its insides included: nothing may be left of what is gone.
fn whole(store: &Store) -> (BTreeMap<String, String>, [usize; 4]) {
    (content(store), store.sizes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any history of reloads a store is the one that its files alone make; what they alone would not make is
    /// refused, in the same words; and a version that is replaced stays as it was.
    #[test]
    fn reloads_come_to_what_the_files_say(steps in proptest::collection::vec((step(), any::<bool>()), 1..40)) {
        let schema = schema();
        let mut model = start();
        let mut good = model.clone();
        let mut current = read(schema, &texts(&model, true), None).unwrap();
        let mut versions = Vec::new();
        for (step, with_empty) in &steps {
            change(&mut model, step);
            let files = texts(&model, *with_empty);
            match (read(schema, &files, None), read(schema, &files, Some(&current))) {
                (Ok(anew), Ok(after)) => {
                    prop_assert_eq!(whole(&after), whole(&anew));
                    current = after.clone();
                    versions.push((after, whole(&anew)));
                    good = model.clone();
                }
                (Err(anew), Err(after)) => {
                    prop_assert_eq!(after, anew);
                    // Sometimes it is taken back, sometimes the next step is made on top of it.
                    if *with_empty {
                        model = good.clone();
                    }
                }
                (anew, after) => prop_assert!(false, "{:?} {:?}", anew.map(drop), after.map(drop)),
            }
        }
        for (store, was) in versions {
            prop_assert_eq!(whole(&store), was);
        }
    }

    /// The same for single changes; and the next reload undoes what its files do not say.
    #[test]
    fn changes_come_to_what_files_would_say(steps in proptest::collection::vec(step(), 1..40)) {
        let schema = schema();
        let mut model = start();
        let nothing = read(schema, &[], None).unwrap();
        let mut current = read(schema, &texts(&model, false), None).unwrap();
        for step in &steps {
            let mut changed = model.clone();
            let (texts_of_change, removed) = match step {
                Step::Set { file, id, .. } => {
                    changed.iter_mut().for_each(|file| drop(file.remove(id)));
                    change(&mut changed, step);
                    (Some(changed[*file][id].clone()), None)
                }
                Step::Remove { id, .. } if changed.iter().any(|file| file.contains_key(id)) => {
                    changed.iter_mut().for_each(|file| drop(file.remove(id)));
                    (None, Some(uid("Folder", &id.to_string())))
                }
                _ => continue,
            };
            let upsert = texts_of_change.as_deref().map(Change::Upsert);
            let changes: Vec<Change<'_>> = upsert.into_iter().chain(removed.map(Change::Remove)).collect();
            match (read(schema, &texts(&changed, false), None), current.apply(schema, &changes)) {
                (Ok(anew), Ok(after)) => {
                    prop_assert_eq!(whole(&after), whole(&anew));
                    (model, current) = (changed, after);
                }
                (Err(anew), Err(after)) => prop_assert_eq!(after.message, anew.message),
                (anew, after) => prop_assert!(false, "{:?} {:?}", anew.map(drop), after.map(drop)),
            }
        }
        let files = texts(&model, false);
        prop_assert_eq!(whole(&read(schema, &files, Some(&current)).unwrap()), whole(&read(schema, &files, None).unwrap()));
        prop_assert_eq!(whole(&read(schema, &[], Some(&current)).unwrap()), whole(&nothing));
    }
}
