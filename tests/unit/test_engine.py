import itertools
import threading

import pytest
import torch

from helpers.generate.engine import REMEMBERED, Engine
from helpers.generate.events import Event, PromptError, Request, Turn
from helpers.generate.generation import base_answers
from helpers.generate.sampling import Sampling


@pytest.fixture
def engine(tuned_llama, tokenizer):
    return Engine(tuned_llama, tokenizer)


def ask(*models, **knobs):
    return Request("hi", Sampling(**{"max_new_tokens": 8, **knobs}), models)


def text_of(events, model):
    return "".join(event.value for event in events if event.kind == "piece" and event.model == model)


@pytest.mark.parametrize("knobs", [{}, {"temperature": 1.4, "seed": -1}])
def test_both_answer_with_one_seed_as_each_would_alone(engine, knobs):
    job = engine.ask(ask("base", "tuned", **knobs))
    events = list(job)
    seed = job.sampling.seed
    for model in ("base", "tuned"):
        alone = list(engine.ask(ask(model, **(knobs | {"seed": seed}))))
        assert text_of(events, model) == text_of(alone, model)
    assert knobs or text_of(events, "base") != text_of(events, "tuned")
    seeds = {event.value["seed"] for event in events if event.kind == "done"}
    assert seeds == ({seed} if knobs else {None})


def test_the_parting_is_the_first_token_that_differs_with_the_chances_of_both(engine):
    job = engine.ask(ask("base", "tuned"))
    parted = next(event.value for event in job if event.kind == "parted")
    base, tuned = job.streams["base"].generated, job.streams["tuned"].generated
    position = parted["position"]
    assert base[:position] == tuned[:position] and base[position] != tuned[position]
    ids = torch.tensor([engine.prompt_ids(job.request) + base[:position]])
    with torch.no_grad():
        of_tuned = engine.model(ids).logits[0, -1].softmax(dim=-1)
        with base_answers(engine.model):
            of_base = engine.model(ids).logits[0, -1].softmax(dim=-1)
    expected = (of_base[base[position]], of_base[tuned[position]], of_tuned[tuned[position]], of_tuned[base[position]])
    names = ("base_own", "base_other", "tuned_own", "tuned_other")
    assert [parted[name] for name in names] == pytest.approx([float(share) for share in expected], abs=1e-5)


def test_equal_answers_do_not_part(tiny_llama, tokenizer):
    engine = Engine(tiny_llama, tokenizer)
    assert engine.parting(ask("base", "tuned"), [1, 2], [1, 2]) is None
    assert engine.parting(ask("base", "tuned"), [1, 2], [1, 2, 3]) is None  # one was stopped earlier


def test_stop_ends_the_first_answer_and_leaves_the_second_out(engine):
    job = engine.ask(ask("base", "tuned", max_new_tokens=200, temperature=1.0, seed=3))
    for event in job:
        if event.kind == "piece":
            job.stop()
    assert list(job.streams) == ["base"] and job.streams["base"].tokens < 20
    assert not engine.queue.line


def test_an_answer_goes_on_from_chosen_tokens_as_generate_does(engine):
    begun = engine.tokenizer("abc", add_special_tokens=False)["input_ids"]
    request = Request("hi", Sampling(max_new_tokens=6), ("tuned",), begun=tuple(begun))
    job = engine.ask(request)
    events = list(job)
    ids = torch.tensor([engine.prompt_ids(request) + begun])
    made = engine.model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert made[0, ids.shape[1] :].tolist()[: job.streams["tuned"].tokens] == job.streams["tuned"].generated
    assert text_of(events, "tuned").startswith("abc")
    cell = {"model": engine.model, "tokenizer": engine.tokenizer}
    exec(events[-1].value["code"], cell)
    assert cell["answer"] == text_of(events, "tuned")


def test_a_look_asks_the_model_once_and_follows_the_knobs(engine, monkeypatch):
    first = engine.look(ask("tuned", temperature=1.0))
    monkeypatch.setattr(engine.model, "forward", None)  # another pass would fail
    narrow = engine.look(ask("tuned", temperature=1.0, top_k=2))
    assert [row.before for row in narrow.rows] == [row.before for row in first.rows]
    assert narrow.kept == 2 and first.kept > 20 and len(first.rows) == 20


def test_a_look_at_base_and_tuned_differs_and_after_training_too(engine):
    tuned, base = engine.look(ask("tuned")), engine.look(ask("base"))
    assert [row.before for row in tuned.rows] != [row.before for row in base.rows]
    with torch.no_grad():
        next(weight for name, weight in engine.model.named_parameters() if "lora_B" in name).mul_(-1)
    assert engine.look(ask("tuned")) != tuned and engine.look(ask("base")) == base


def test_few_scores_are_remembered(engine):
    for begun in range(2 * REMEMBERED):
        engine.look(Request("hi", Sampling(), ("tuned",), begun=(begun + 5,)))
    assert len(engine.known) == REMEMBERED


def test_a_look_does_not_wait_for_an_answer_of_somebody_else(engine):
    events = iter(engine.ask(ask("tuned")))
    next(events)
    assert engine.look(ask("tuned")) is None
    list(events)
    assert engine.look(ask("tuned")) is not None


def test_a_prompt_longer_than_the_context_never_reaches_the_model(engine, monkeypatch):
    monkeypatch.setattr(engine.decoder, "logits", None)
    engine.model.config.max_position_embeddings = 50
    request = Request("x" * 200, Sampling(max_new_tokens=8), ("tuned",))
    length = len(engine.prompt_ids(request))
    for asked in (engine.ask, engine.look):
        with pytest.raises(PromptError, match=rf"{length:,} tokens.*context is 50 tokens.*{length - 49} too many"):
            asked(request)
    assert not engine.queue.line
    shorter = Request("hi", Sampling(max_new_tokens=8), ("tuned",), begun=tuple(range(5, 60)))
    with pytest.raises(PromptError):
        engine.ask(shorter)


def test_an_answer_ends_where_the_context_is_full_and_says_so(engine):
    length = len(engine.prompt_ids(ask("tuned")))
    engine.model.config.max_position_embeddings = length + 5
    done = list(engine.ask(ask("tuned", max_new_tokens=100, temperature=1.0, seed=3)))[-1].value
    assert done["tokens"] == 5 and "context is full" in done["reason"] and "max_new_tokens=5," in done["code"]


def layers_run(engine, each):
    """Calls each(number) when a layer of the model has run, counted from 1 over all passes of an answer."""
    count = itertools.count(1)
    assert engine.decoder.cached, "which takes passes of its own to find out"

    def ran(*_):
        each(next(count))

    for layer in engine.model.get_base_model().model.layers:
        layer.register_forward_hook(ran)


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_stop_while_a_long_prompt_is_read_comes_before_the_next_layer(engine, monkeypatch, at):
    monkeypatch.setattr("helpers.generate.decode.CPU_PIECE", 16)
    request = Request("word " * 60, Sampling(max_new_tokens=8), ("base", "tuned"))
    whole = [event for event in engine.ask(request) if event.kind == "piece"]
    job, run, layers = engine.ask(request), [], engine.model.config.num_hidden_layers
    layers_run(engine, lambda number: run.append(number) or (number == at and job.stop()))
    heard = list(job)
    assert run == list(range(1, at + 1)), "no layer begins after a stop"
    read = [event.value[0] for event in heard if event.kind == "reading"]
    assert read == [16 * piece for piece in range(1, at // layers + 1)]
    assert heard[-1].value["reason"] == "you stopped it" and heard[-1].value["tokens"] == 0
    assert {event.kind for event in heard} <= {"begin", "reading", "done"} and not engine.queue.line
    assert [event for event in engine.ask(request) if event.kind == "piece"] == whole, "nothing of it is left"


def test_a_stop_between_two_pieces_of_a_prompt_runs_no_layer(engine, monkeypatch):
    monkeypatch.setattr("helpers.generate.decode.CPU_PIECE", 16)
    job, run = engine.ask(Request("word " * 60, Sampling(max_new_tokens=8), ("base", "tuned"))), []
    layers_run(engine, run.append)
    heard = []
    for event in job:
        heard.append(event)
        if event.kind == "reading":
            job.stop()
    assert len(run) == engine.model.config.num_hidden_layers, "of the first piece"
    assert [event.kind for event in heard] == ["begin", "reading", "done"] and heard[1].value[0] == 16


def test_a_long_answer_and_short_ones_take_turns_and_stay_what_they_are_alone(engine, monkeypatch):
    monkeypatch.setattr("helpers.generate.decode.CPU_PIECE", 16)
    long = Request("word " * 20, Sampling(max_new_tokens=60, temperature=1.0, seed=3), ("base", "tuned"))
    short = Request("hi", Sampling(max_new_tokens=6, temperature=1.0, seed=4), ("tuned",))
    alone = [[e for e in engine.ask(request) if e.kind in ("piece", "parted")] for request in (long, short)]
    monkeypatch.setattr("helpers.generate.engine.TURN_SECONDS", 0.0)
    order, heard = [], ([], [])

    def visit(side, request):
        for event in engine.ask(request):
            heard[side].append(event)
            order.append((side, event.kind))
            ready.set()

    ready = threading.Event()
    threads = [threading.Thread(target=visit, args=(side, request)) for side, request in enumerate((long, short))]
    for thread in threads:
        thread.start()
        ready.wait()
    for thread in threads:
        thread.join(timeout=60)
    for side in (0, 1):
        assert [e for e in heard[side] if e.kind in ("piece", "parted")] == alone[side]
    assert order.index((1, "done")) < order.index((0, "done")), "the short one did not wait for the long one"
    assert (0, "waiting") in order[: order.index((1, "done"))], "and the long one was told"
    assert not engine.queue.line


def test_long_answers_take_equal_turns_and_every_place_that_is_told_is_true(engine, monkeypatch):
    monkeypatch.setattr("helpers.generate.engine.TURN_SECONDS", 0.0)
    jobs = [engine.ask(ask("tuned", max_new_tokens=40, temperature=1.0, seed=seed)) for seed in range(3)]
    events, turns, told = [iter(job) for job in jobs], [], []

    def hear(number):
        if (event := next(events[number], None)) and event.kind == "waiting":
            told.append((number, len(turns), event.value))
        return event

    for number in range(3):
        hear(number)
    while engine.queue.line:
        turns.append(jobs.index(engine.queue.line[0]))
        while (event := hear(turns[-1])) and event.kind != "waiting":
            pass
        for job in list(engine.queue.line):
            if job is not jobs[turns[-1]]:
                hear(jobs.index(job))
    whole = min(map(turns.count, range(3)))
    assert whole >= 3 and turns[: 3 * whole] == [0, 1, 2] * whole
    for number, after, place in told:
        assert turns[after:].index(number) == place, f"{number} was told {place} after {after} turns"


def test_who_stops_between_two_turns_keeps_what_there_is(engine, monkeypatch):
    monkeypatch.setattr("helpers.generate.engine.TURN_SECONDS", 0.0)
    job, heard = engine.ask(ask("base", "tuned", max_new_tokens=300, temperature=1.0, seed=3)), []
    events = iter(job)
    while next(events).kind != "piece":
        pass
    other = iter(engine.queue.wait("somebody"))
    next(other)
    for event in events:
        heard.append(event)
        if event.kind == "waiting":
            job.stop()
    assert [event.kind for event in heard][-2:] == ["waiting", "done"] and list(engine.queue.line) == ["somebody"]
    assert heard[-1].value["reason"] == "you stopped it" and heard[-1].value["tokens"] >= 1


def test_a_look_at_a_long_prompt_gives_way_to_an_answer(engine, monkeypatch):
    monkeypatch.setattr("helpers.generate.decode.CPU_PIECE", 4)
    whole = engine.decoder.logits

    def meanwhile(ids):
        if len(engine.queue.line) == 1:
            engine.queue.line.append("somebody")
        return whole(ids)

    monkeypatch.setattr(engine.decoder, "logits", meanwhile)
    assert engine.look(ask("tuned")) is None and not engine.known
    engine.queue.leave("somebody")


def test_a_second_request_waits_and_is_told(engine):
    first, heard = iter(engine.ask(ask("tuned"))), []
    next(first)
    second = threading.Thread(target=lambda: heard.extend(engine.ask(ask("base"))))
    second.start()
    while not heard:
        pass
    assert heard[0] == Event("waiting", value=1)
    list(first)
    second.join(timeout=20)
    assert heard[-1].kind == "done"


def test_who_stops_while_waiting_gets_no_answer(engine):
    first = iter(engine.ask(ask("tuned")))
    next(first)
    job = engine.ask(ask("base"))
    waiting = iter(job)
    assert next(waiting).kind == "waiting"
    job.stop()
    assert list(waiting) == [] and len(engine.queue.line) == 1
    list(first)


def test_an_answer_that_fails_frees_the_line_and_switches_the_adapter_on_again(engine, monkeypatch):
    before = engine.look(ask("tuned"))
    monkeypatch.setattr(engine.decoder, "logits", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        list(engine.ask(ask("base", "tuned")))
    monkeypatch.undo()
    engine.known.clear()
    assert not engine.queue.line and engine.look(ask("tuned")) == before


@pytest.mark.parametrize("broken", ['{"models": []}', "[]", "nothing", '{"prompt": "hi"}'])
def test_a_request_that_cannot_be_read_is_refused(broken):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        Request.from_json(broken)


def test_a_request_travels_as_json():
    knobs, earlier = Sampling(temperature=0.5, stop=("Q:",)), (Turn("a?", {"base": "b", "tuned": "t"}),)
    request = Request("hé <b>", knobs, ("base", "tuned"), "be brief", (1, 2), earlier)
    assert Request.from_json(request.to_json()) == request


EARLIER = (Turn("one?", {"base": "b1", "tuned": "t1"}), Turn("two?", {"tuned": "t2"}))


def test_each_model_reads_its_own_earlier_answers():
    request = Request("three?", Sampling(), ("base", "tuned"), "be brief", earlier=EARLIER)
    said = {which: [m["content"] for m in request.messages(which)] for which in ("base", "tuned")}
    assert said["base"] == ["be brief", "one?", "b1", "two?", "t2", "three?"]
    assert said["tuned"] == ["be brief", "one?", "t1", "two?", "t2", "three?"]
    assert [m["role"] for m in request.messages("base")] == ["system", *["user", "assistant"] * 2, "user"]


def test_the_oldest_turns_are_left_out_where_the_context_has_no_room_and_that_is_told(engine, monkeypatch):
    request = Request("three?", Sampling(max_new_tokens=4), ("tuned",), earlier=EARLIER)
    whole = len(engine.prompt_ids(request, "tuned"))
    (done,) = [event.value for event in engine.ask(request) if event.kind == "done"]
    assert (done["read"], done["left_out"], done["context"]) == (whole, 0, engine.context)
    engine.model.config.max_position_embeddings = whole + 3
    assert engine.fitted(request).earlier == EARLIER[1:]
    (done,) = [event.value for event in engine.ask(request) if event.kind == "done"]
    assert done["left_out"] == 1 and done["read"] + 4 <= engine.context
    monkeypatch.setattr(Engine, "context", 0)
    assert engine.fitted(request) == request, "a model that tells no context reads all"


def test_where_two_part_after_earlier_turns_each_chance_is_after_its_own(engine):
    request = Request("three?", Sampling(max_new_tokens=8), ("base", "tuned"), earlier=EARLIER)
    parted = next(event.value for event in engine.ask(request) if event.kind == "parted")
    base, shared = engine.prompt_ids(request, "base"), parted["position"]
    job = engine.ask(request)
    list(job)
    ids = torch.tensor([base + engine_ids(job, "base")[:shared]])
    with torch.no_grad(), base_answers(engine.model):
        chances = engine.model(input_ids=ids).logits[0, -1].softmax(dim=-1)
    assert float(chances[engine_ids(job, "base")[shared]]) == pytest.approx(parted["base_own"], abs=1e-4)


def engine_ids(job, which):
    return job.ids(job.streams[which])
