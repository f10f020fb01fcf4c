use super::*;
use specimen::{Family, Shape, Weights};
use std::io::Cursor;

const MODEL: Hash = Hash([7; 32]);

struct Bench {
    dir: tempfile::TempDir,
    stages: Stages,
    bytes: Vec<u8>,
}

impl Bench {
    fn new(family: Family) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::open(&dir.path().join("stages")).unwrap();
        let bytes = specimen::bytes(family, &Shape::MINIATURE, Weights::F32, 1);
        fs::write(dir.path().join("model.gguf"), &bytes).unwrap();
        Self { dir, stages, bytes }
    }

    fn request(&self, role: Role, first: u32, end: u32) -> StageRequest {
        let source = self.dir.path().join("model.gguf");
        StageRequest {
            source,
            model: MODEL,
            role,
            layers: LayerRange { first, end },
        }
    }

    fn get(&self, role: Role, first: u32, end: u32) -> Result<PathBuf, StageError> {
        self.stages
            .get_blocking(&self.request(role, first, end), &Stop::default())
    }

    fn plan(&self, role: Role, first: u32, end: u32) -> StagePlan {
        let header = Header::from_bytes(&self.bytes).unwrap();
        plan(&header, role, LayerRange { first, end }).unwrap()
    }

    /// Names in the stage directory other than the lock.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.stages.dir).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != LOCK_NAME).collect()
    }
}

fn composed(source: &[u8], plan: &StagePlan) -> Vec<u8> {
    let mut file = plan.header.clone();
    for piece in &plan.pieces {
        match piece {
            Piece::Copy { offset, bytes } => {
                file.extend(&source[*offset as usize..(offset + bytes) as usize]);
            }
            Piece::Literal(bytes) => file.extend(bytes),
            Piece::Zeros(bytes) => file.resize(file.len() + *bytes as usize, 0),
        }
    }
    file
}

#[test]
fn a_stage_file_is_what_the_plan_says_and_a_footer() {
    for family in [Family::Llama, Family::Qwen2, Family::Gemma3, Family::GptOss] {
        let bench = Bench::new(family);
        for (role, first, end) in [
            (Role::Head, 0, 1),
            (Role::Middle, 1, 2),
            (Role::Tail, 2, 3),
            (Role::Tail, 1, 3),
        ] {
            let path = bench.get(role, first, end).unwrap();
            let file = fs::read(&path).unwrap();
            let (body, footer) = file.split_at(file.len() - FOOTER_BYTES as usize);
            assert_eq!(
                body,
                composed(&bench.bytes, &bench.plan(role, first, end)),
                "{family:?}"
            );
            assert_eq!(footer[..8], FOOTER_MAGIC);
            assert_eq!(footer[8..], *Hash::of(body).as_bytes());
            assert_eq!(Header::from_bytes(&file).unwrap().layers(), end - first);
            Stages::verify(&path).unwrap();
        }
        assert_eq!(bench.names().len(), 4, "{family:?}");
    }
}

#[test]
fn a_finished_stage_is_used_again_and_a_damaged_one_is_cut_again() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new(Family::Llama);
    let path = bench.get(Role::Middle, 1, 2).unwrap();
    let good = fs::read(&path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(bench.get(Role::Middle, 1, 2).unwrap(), path);
    assert_eq!(
        fs::metadata(&path).unwrap().ino(),
        inode,
        "it was written again"
    );

    let damage: [fn(&mut Vec<u8>); 4] = [
        |file| file.truncate(file.len() - 1),
        |file| file.truncate(0),
        |file| file[50] ^= 1,
        |file| *file.iter_mut().nth_back(39).unwrap() ^= 1,
    ];
    for (number, strike) in damage.iter().enumerate() {
        let mut file = good.clone();
        strike(&mut file);
        fs::write(&path, &file).unwrap();
        assert_eq!(bench.get(Role::Middle, 1, 2).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), good, "damage {number}");
    }
}

#[test]
fn damage_inside_the_weights_is_found_by_a_full_look() {
    let bench = Bench::new(Family::Llama);
    let path = bench.get(Role::Middle, 1, 2).unwrap();
    let mut file = fs::read(&path).unwrap();
    let inside = file.len() - 5_000;
    file[inside] ^= 1;
    fs::write(&path, &file).unwrap();
    assert!(matches!(
        Stages::verify(&path),
        Err(StageError::Damaged { .. })
    ));
    fs::write(&path, b"short").unwrap();
    assert!(matches!(
        Stages::verify(&path),
        Err(StageError::Damaged { .. })
    ));
}

#[test]
fn failures_say_why_and_leave_nothing_behind() {
    let bench = Bench::new(Family::SmolLm3);
    let error = bench.get(Role::Head, 0, 1).unwrap_err();
    assert!(error.to_string().contains("whole on one node"), "{error}");

    let bench = Bench::new(Family::Llama);
    let error = bench.get(Role::Head, 0, 3).unwrap_err();
    assert!(error.to_string().contains("layers 0..3"), "{error}");
    let source = bench.request(Role::Head, 0, 1).source;
    fs::write(&source, &bench.bytes[..bench.bytes.len() / 2]).unwrap();
    let error = bench.get(Role::Tail, 1, 3).unwrap_err();
    assert!(matches!(error, StageError::Model { .. }), "{error}");
    assert!(error.to_string().contains("model.gguf"), "{error}");
    fs::remove_file(&source).unwrap();
    assert!(matches!(
        bench.get(Role::Tail, 1, 3).unwrap_err(),
        StageError::File(_)
    ));
    assert_eq!(bench.names(), [""; 0]);
}

#[test]
fn a_source_that_shrinks_while_it_is_read_leaves_no_file() {
    let bench = Bench::new(Family::Llama);
    let request = bench.request(Role::Tail, 1, 3);
    let (source, _) = open_source(&request.source).unwrap();
    let plan = bench.plan(Role::Tail, 1, 3);
    let path = bench.stages.dir.join(request.file_name());
    File::options()
        .write(true)
        .open(&request.source)
        .unwrap()
        .set_len(9_000)
        .unwrap();
    let error = bench
        .stages
        .compose(&source, &plan, &path, &Stop::default())
        .unwrap_err();
    assert!(matches!(error, StageError::SourceChanged { .. }), "{error}");
    assert_eq!(bench.names(), [""; 0]);
}

/// A disk with little room.
struct SmallDisk {
    written: Cursor<Vec<u8>>,
    room: usize,
}

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.get_ref().len() + bytes.len() > self.room {
            return Err(ErrorKind::StorageFull.into());
        }
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SmallDisk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.written.seek(to)
    }
}

#[test]
fn a_disk_that_fills_up_midway_is_told_as_such() {
    let bench = Bench::new(Family::Llama);
    let request = bench.request(Role::Tail, 1, 3);
    let (source, _) = open_source(&request.source).unwrap();
    let plan = bench.plan(Role::Tail, 1, 3);
    let dir = bench.stages.dir.as_path();
    for room in [0, 100, plan.header.len() + 1, plan.bytes as usize] {
        let file = SmallDisk {
            written: Cursor::default(),
            room,
        };
        let stop = Stop::default();
        let mut composer = Composer {
            file,
            hasher: blake3::Hasher::new(),
            stop: &stop,
        };
        let full_or = |error: io::Error| match DiskFull::is(&error) {
            true => StageError::DiskFull(DiskFull::at(dir, written_bytes(&plan))),
            false => panic!("{error}"),
        };
        let error = composer.run(&source, &plan, full_or).unwrap_err();
        assert!(error.to_string().contains("no room in"), "{error}");
    }
}

#[test]
fn callers_at_once_get_the_same_file_and_leave_one() {
    let bench = Bench::new(Family::Qwen3);
    // Left by a process that died: swept by the next composition.
    fs::write(bench.stages.dir.join("x.gguf.1-0.new"), b"half").unwrap();
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| bench.get(Role::Head, 0, 2).unwrap()))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(paths.iter().all(|path| *path == paths[0]));
    assert_eq!(bench.names(), [bench.request(Role::Head, 0, 2).file_name()]);
    Stages::verify(&paths[0]).unwrap();
}

#[test]
fn a_caller_that_waits_for_another_cut_can_give_up() {
    let bench = Bench::new(Family::Llama);
    let held = bench.stages.lock(&Stop::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let waiting = bench.stages.get(bench.request(Role::Head, 0, 1));
    let gave_up = runtime.block_on(async {
        tokio::time::timeout(Duration::from_millis(120), waiting)
            .await
            .is_err()
    });
    assert!(gave_up, "somebody else held the lock");
    // Ends only when the blocking work ended too.
    drop(runtime);
    drop(held);
    assert_eq!(bench.names(), [""; 0]);
    bench.get(Role::Head, 0, 1).unwrap();
}

#[test]
fn large_fillers_become_holes() {
    let bench = Bench::new(Family::Qwen2);
    let bytes = HOLE_BYTES_MIN * 3 + 5;
    let plan = StagePlan {
        pieces: vec![Piece::Zeros(bytes)],
        ..bench.plan(Role::Tail, 1, 3)
    };
    let model = bench.dir.path().join("model.gguf");
    let (source, _) = open_source(&model).unwrap();
    let stop = Stop::default();
    let mut file = Cursor::new(Vec::new());
    let mut composer = Composer {
        file: &mut file,
        hasher: blake3::Hasher::new(),
        stop: &stop,
    };
    composer
        .run(&source, &plan, |error| panic!("{error}"))
        .unwrap();
    let file = file.into_inner();
    let body = plan.header.len() + bytes as usize;
    assert_eq!(file.len(), body + FOOTER_BYTES as usize);
    assert_eq!(file[body + 8..], *Hash::of(&file[..body]).as_bytes());
    assert_eq!(
        written_bytes(&plan),
        plan.header.len() as u64 + FOOTER_BYTES
    );
}
