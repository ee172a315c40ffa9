//! A front with its attach socket: the policy and who waits there, brought together as `front.rs` and `attach/` do.

use std::collections::VecDeque;

use handoff::message::GenerationId;

use crate::event::{Action, Attaching, Event, Exit, Failure, ProgramId};
use crate::explored::{LONG, Others, Stimulus, World};

/// So many wait at most in random histories.
const MOST_WAITING: usize = 3;

#[derive(Debug)]
pub(super) struct Door {
    pub(super) world: World,
    pub(super) waiting: VecDeque<Attaching>,
}

/// What may happen to it.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Feel(Stimulus),
    Comes(Attaching),
    /// The one at this place leaves.
    Leaves(usize),
}

impl Door {
    pub(super) const fn new(world: World) -> Self {
        Self { world, waiting: VecDeque::new() }
    }

    /// Whatever may happen, but that the front stops.
    pub(super) fn steps(&self) -> Vec<Step> {
        let stimuli = self.world.stimuli().into_iter();
        let lasting = stimuli.filter(|s| !matches!(s, Stimulus::Stop | Stimulus::StopNow));
        let mut steps: Vec<_> = lasting.map(Step::Feel).collect();
        if self.world.others != Others::Program {
            steps.extend((0..self.waiting.len()).map(Step::Leaves));
            if self.waiting.len() < MOST_WAITING {
                steps.extend(self.comers().map(Step::Comes));
            }
        }
        steps
    }

    fn comers(&self) -> impl Iterator<Item = Attaching> {
        let waits = |id: GenerationId| self.waiting.iter().any(|one| number(*one) == Some(id));
        let lives = |id: &GenerationId| self.world.generations.living.contains_key(id);
        let gone = (0..).map(GenerationId::new).find(|id| !lives(id) && !waits(*id));
        let returning = gone.into_iter();
        let returning =
            returning.flat_map(|id| [Attaching::Returned(id), Attaching::Drains(id, LONG)]);
        [Attaching::Fresh].into_iter().chain(returning)
    }

    pub(super) fn step(&mut self, step: Step) -> Vec<Action> {
        match step {
            Step::Feel(stimulus) => self.feel(stimulus),
            Step::Comes(comer) => self.comes(comer),
            Step::Leaves(at) => self.leaves(at),
        }
    }

    /// Somebody calls; one that returns comes first.
    pub(super) fn comes(&mut self, comer: Attaching) -> Vec<Action> {
        if let Some(id) = number(comer) {
            self.world.generations.has_known(id, 0);
        }
        match comer {
            Attaching::Fresh => self.waiting.push_back(comer),
            _ => self.waiting.push_front(comer),
        }
        self.happens(Event::Attaching(self.next()))
    }

    pub(super) fn leaves(&mut self, at: usize) -> Vec<Action> {
        self.waiting.remove(at);
        self.happens(Event::Attaching(self.next()))
    }

    pub(super) fn happens(&mut self, event: Event) -> Vec<Action> {
        self.feel(Stimulus::Event(event))
    }

    /// All that comes of it, in order.
    pub(super) fn feel(&mut self, stimulus: Stimulus) -> Vec<Action> {
        let mut actions = self.felt(stimulus);
        let mut at = 0;
        while let Some(action) = actions.get(at) {
            at += 1;
            let event = match *action {
                Action::Spawn { generation, program: ProgramId::ATTACHED } => {
                    match self.take(|one| one == Attaching::Fresh) {
                        Some(_) => Event::Attaching(self.next()),
                        None => {
                            let reason = "the worker that waited has left".into();
                            Event::Unfit(generation, Failure::NotStarted { reason })
                        }
                    }
                }
                Action::TakeBack(id) => match self.take(|one| number(one) == Some(id)) {
                    Some(_) => Event::Attaching(self.next()),
                    None => Event::Exited { generation: id, exit: Exit::Unknown },
                },
                _ => continue,
            };
            actions.extend(self.felt(Stimulus::Event(event)));
        }
        actions
    }

    fn felt(&mut self, stimulus: Stimulus) -> Vec<Action> {
        let before = self.world.clone();
        let actions = self.world.feel(stimulus.clone());
        self.world.assert_sound();
        self.world.assert_consequent(&before, &stimulus, &actions);
        actions
    }

    fn take(&mut self, is_it: impl Fn(Attaching) -> bool) -> Option<Attaching> {
        let at = self.waiting.iter().position(|one| is_it(*one))?;
        self.waiting.remove(at)
    }

    fn next(&self) -> Attaching {
        self.waiting.front().copied().unwrap_or_default()
    }
}

const fn number(attaching: Attaching) -> Option<GenerationId> {
    match attaching {
        Attaching::Nobody | Attaching::Fresh => None,
        Attaching::Returned(id) | Attaching::Drains(id, _) => Some(id),
    }
}
