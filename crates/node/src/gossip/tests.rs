use super::*;

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// Nodes whose messages arrive at once; their timers never end.
struct Circle(BTreeMap<NodeId, Speech>);

impl Circle {
    fn new(nodes: u8) -> Self {
        let speech = |n: u8| {
            let random = StdRng::seed_from_u64(n.into());
            let mut speech = Speech::new(id(n), CommonsId([9; 32]), random);
            let join = Command::Join(Vec::new());
            speech.command(join, Instant::now());
            (id(n), speech)
        };
        Self((1..=nodes).map(speech).collect())
    }

    /// Lets a node act, and all messages arrive; returns who heard what.
    fn after(
        &mut self,
        node: u8,
        act: impl FnOnce(&mut Speech) -> Vec<Deed>,
    ) -> Vec<(NodeId, Bytes)> {
        let deeds = act(self.0.get_mut(&id(node)).unwrap());
        let mut queue: VecDeque<_> = deeds.into_iter().map(|deed| (id(node), deed)).collect();
        let mut heard = Vec::new();
        while let Some((at, deed)) = queue.pop_front() {
            match deed {
                Deed::Send(to, message) => {
                    let speech = self.0.get_mut(&to).unwrap();
                    let event = InEvent::RecvMessage(at, message);
                    let deeds = speech.handle(event, Instant::now());
                    queue.extend(deeds.into_iter().map(|deed| (to, deed)));
                }
                Deed::Hear(said) => heard.push((at, said.message)),
                Deed::Wait(..) => {}
            }
        }
        heard
    }

    fn link(&mut self, a: u8, b: u8) -> Vec<(NodeId, Bytes)> {
        self.after(a, |speech| {
            speech.command(Command::Join(vec![id(b)]), Instant::now())
        })
    }
}

#[test]
fn what_was_said_to_nobody_is_said_again_to_the_first_who_listens() {
    let mut circle = Circle::new(3);
    circle.link(2, 3);
    let ad = Bytes::from_static(b"ad");
    let say = |speech: &mut Speech| speech.say(ad.clone(), Instant::now());
    assert_eq!(circle.after(1, say), [], "nobody listens");
    let mut heard = circle.link(1, 2);
    heard.sort();
    assert_eq!(heard, [(id(2), ad.clone()), (id(3), ad.clone())]);
    // Once is enough.
    assert_eq!(circle.link(1, 3), []);
}
