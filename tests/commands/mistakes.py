"""Plausible wrong commands, what is said of each, and the command that the advice makes of it."""

from __future__ import annotations

from typing import NamedTuple


class Mistake(NamedTuple):
    """A command that a newcomer may type.

    Attributes:
        command: after `evalkit`, in a folder as `world` in test_mistakes.py makes it.
        says: part of the one line that answers it.
        mended: the command as the line advises; of each of its words that is new, what is new stands in the
            line. Empty where nothing
            can be advised that works, since it is the user who knows what is meant.
    """

    command: str
    says: str
    mended: str = ""


MINI = "run task=egoschema ckpt=demo mini=true"
OWN = "run task=folder data.root=videos.csv ckpt=demo"

# --- how words are written -------------------------------------------------------------------------------------------
WORDS = [
    Mistake("run", "run needs task=..."),
    Mistake("run task=egoschema", "run needs ckpt=..."),
    Mistake("run --task egoschema ckpt=demo mini=true", "Write task=egoschema, without dashes", MINI),
    Mistake("run --task=egoschema ckpt=demo mini=true", "Did you mean 'task', without dashes?"),
    Mistake("run task=egoschema --ckpt demo mini=true", "Write ckpt=demo, without dashes", MINI),
    Mistake("run task=egoschema --model demo mini=true", "Write ckpt=demo, without dashes", MINI),
    Mistake("run task=egoschema ckpt=demo --mini", "Write mini=true, without dashes", MINI),
    Mistake("run task=egoschema ckpt=demo mini=true --batch-size=4", "Did you mean 'adapter.batch_size'?"),
    Mistake("run task=egoschema ckpt=demo mini=true --lr 1e-4", "Write adapter.lr=1e-4, without dashes"),
    Mistake("run --hlep", "Did you mean '--help'?", "run --help"),
    Mistake("run task = egoschema ckpt=demo mini=true", "Write task=egoschema, without blanks", MINI),
    Mistake("run task =egoschema ckpt=demo mini=true", "Write task=egoschema, without blanks", MINI),
    Mistake("run task= egoschema ckpt=demo mini=true", "Write task=egoschema, without blanks", MINI),
    Mistake("run task=egoschema ckpt= demo mini=true", "Write ckpt=demo, without blanks", MINI),
    Mistake("run task:egoschema ckpt=demo mini=true", "Did you mean 'task=egoschema'?", MINI),
    Mistake("run egoschema ckpt=demo mini=true", "Did you mean 'task=egoschema'?", MINI),
    Mistake("run task=egoschema demo mini=true", "Did you mean 'ckpt=demo'?", MINI),
    Mistake("run task=egoschema wrapped.pt mini=true", "Did you mean 'ckpt=wrapped.pt'?"),
    Mistake("run task=egoschema ckpt=demo mini", "Did you mean 'mini=true'?", MINI),
    Mistake("run task=\"'egoschema'\" ckpt=demo mini=true", "Did you mean 'egoschema'?", MINI),
    Mistake("run task=egoschema, ckpt=demo mini=true", "Did you mean 'egoschema'?", MINI),
    Mistake("run task=egoschema task=ssv2 ckpt=demo", "task is given twice: task=egoschema and task=ssv2"),
    Mistake("run task=egoschema,ssv2 ckpt=demo mini=true", "evalkit sweep task=egoschema,ssv2 runs each"),
    Mistake("run suite=videoglue task=egoschema ckpt=demo", "a suite has its own tasks: activitynet_tal"),
    Mistake("run suite=videglue ckpt=demo", "Did you mean 'videoglue'?"),
    Mistake("run suite=videoglue", "run needs ckpt=..."),
    Mistake("run config=nowhere.yaml", "config=nowhere.yaml: no such file or directory"),
    Mistake("run config=notes.txt", "expected lines of key: value"),
    Mistake("task egoschema", "Did you mean 'evalkit run task=egoschema ...'?"),
    Mistake("egoschema", "Did you mean 'evalkit run task=egoschema ...'?"),
    Mistake("task=egoschema ckpt=demo mini=true", "Did you mean 'evalkit run task=egoschema ...'?", MINI),
    Mistake("--task=egoschema ckpt=demo", "Did you mean 'evalkit run task=egoschema ...'?"),
    Mistake("evaluate task=egoschema ckpt=demo mini=true", "Did you mean 'evalkit run'?", MINI),
    Mistake("eval", "Did you mean 'evalkit run'?"),
    Mistake("version", "Did you mean 'evalkit --version'?", "--version"),
    Mistake("models", "Did you mean 'evalkit list encoders'?", "list encoders"),
    Mistake("leaderbord", "Did you mean 'leaderboard'?"),
]

# --- names of tasks, keys and values ---------------------------------------------------------------------------------
NAMES = [
    Mistake(
        "run task=k400 ckpt=demo mini=true",
        "Did you mean task=kinetics400?",
        "run task=kinetics400 ckpt=demo mini=true",
    ),
    Mistake("run task=Kinetics-400 ckpt=demo mini=true", "Did you mean 'kinetics400'?"),
    Mistake("run task=kinetics ckpt=demo", "one of 'kinetics400', 'kinetics600', 'kinetics700'"),
    Mistake("run task=something-something-v2 ckpt=demo mini=true", "task=ssv2?", "run task=ssv2 ckpt=demo mini=true"),
    Mistake("run task=MSR-VTT ckpt=demo", "Did you mean 'msrvtt'?"),
    Mistake("run task=EgoSchema ckpt=demo mini=true", "Did you mean 'egoschema'?", MINI),
    Mistake("run task=videomme ckpt=demo", "no task named 'videomme'. `evalkit list tasks` shows all"),
    Mistake("run task=my_task ckpt=demo", "Did you mean task=./my_task.py?"),
    Mistake("run task=./my_tsk.py ckpt=demo", "Did you mean 'my_task.py'?"),
    Mistake("run task=./my_task.py ckpt=demo", "no function named 'task'; call 'tsak' so"),
    Mistake("run task=videos.csv ckpt=demo", "videos.csv holds data: task=folder data.root=videos.csv", OWN),
    Mistake("run task=films ckpt=demo", "films holds data: task=folder data.root=films"),
    Mistake(f"{OWN} adapter=linear", "adapter=probe adapter.head=linear?", f"{OWN} adapter=probe adapter.head=linear"),
    Mistake(f"{OWN} adapter=linear_probe", "adapter.head=linear?", f"{OWN} adapter=probe adapter.head=linear"),
    Mistake(f"{OWN} adapter=attentive", "adapter.head=attentive?", f"{OWN} adapter=probe adapter.head=attentive"),
    Mistake(f"{OWN} adapter=KNN adapter.k=2", "Did you mean 'knn'?", f"{OWN} adapter=knn adapter.k=2"),
    Mistake(f"{OWN} adapter=lora", "adapter.tune=lora?", f"{OWN} adapter=finetune adapter.tune=lora"),
    Mistake(f"{OWN} adapter=./my_adapter.py", "no adapter file './my_adapter.py'"),
    Mistake(f"{OWN} adapter=transformer", "no adapter named 'transformer'. Known: attentive_classifier, captioner"),
    Mistake(f"{OWN} lr=1e-4", "Did you mean 'adapter.lr'?", f"{OWN} adapter.lr=1e-4"),
    Mistake(f"{OWN} adapter.learning_rate=1e-4", "Did you mean 'adapter.lr'?", f"{OWN} adapter.lr=1e-4"),
    Mistake(f"{OWN} epochs=10", "Did you mean 'adapter.epochs'?", f"{OWN} adapter.epochs=10"),
    Mistake(f"{OWN} frames=8", "Did you mean 'clip.frames'?"),
    Mistake(f"{OWN} gpus=2", "Did you mean 'devices'?"),
    Mistake(f"{OWN} num_workers=1", "Did you mean 'workers'?", f"{OWN} workers=1"),
    Mistake(f"{OWN} output_dir=o", "Did you mean 'out'?", f"{OWN} out=o"),
    Mistake(f"{OWN} resume=true", "leave it out; the same command goes on from what is stored", OWN),
    Mistake(f"{OWN} verbose=true", "unknown key 'verbose'. Known: task, ckpt"),
    Mistake("run dataset=egoschema ckpt=demo mini=true", "Did you mean 'task'?", MINI),
    Mistake("run task=egoschema model=demo mini=true", "Did you mean 'ckpt'?", MINI),
    Mistake("run task=egoschema ckpt=demo mini=True", "Did you mean mini=true?", MINI),
    Mistake("run task=egoschema ckpt=demo mini=1", "Did you mean mini=true?", MINI),
    Mistake(f"{OWN} cache=false", "Did you mean 'off'?", f"{OWN} cache=off"),
    Mistake(f"{OWN} device=gpu", "Did you mean 'cuda'?"),
    Mistake(f"{OWN} device=cuda:9", "Did you mean 'cuda'?"),
    Mistake(f"{OWN} devices=0,1", "devices=0,1: expected a whole number"),
    Mistake(f"{OWN} batch=0", "batch=0: expected a whole number above 0"),
    Mistake(f"{OWN} batch_size=", "adapter.batch_size"),
    Mistake(f"{OWN} seed=random", "seed=random: expected a whole number"),
    Mistake(f"{OWN} precision=fp16", "Did you mean '16'?", f"{OWN} precision=16"),
    Mistake(f"{OWN} adapter.head=linaer", "Did you mean 'linear'?", f"{OWN} adapter.head=linear"),
    Mistake(f"{OWN} adapter.lr=fast", "adapter.lr=fast: expected a number"),
    Mistake(f"{OWN} adapter.lr=1e-4,1e-3", "evalkit sweep tries several, adapter.lr=1e-4,1e-3"),
    Mistake(f"{OWN} trainer.shots=50", "has 3 training examples; give no more", f"{OWN} trainer.shots=3"),
    Mistake(f"{OWN} adapter=zero_shot adapter.epochs=3", "Known: adapter.from, adapter.prompts, adapter.question"),
    Mistake(
        f"{OWN} adapter=knn", "there are 7 training examples; give at most as many", f"{OWN} adapter=knn adapter.k=7"
    ),
    Mistake("run task=kinetics400 ckpt=demo mini=true data.protocol=K400", "is not one of videoglue, videoglue_code"),
    Mistake("run task=kinetics400 ckpt=demo mini=true data.root=films", "data.root=films has no effect with mini=true"),
]

# --- data, checkpoints and where results go --------------------------------------------------------------------------
DATA = [
    Mistake("run task=egoschema ckpt=demo", "say where it is, data.root=FOLDER (or mini=true", MINI),
    Mistake(
        "run task=kinetics400 ckpt=demo data.root=nowhere", "data.root=nowhere does not exist: wanted a folder with"
    ),
    Mistake(
        "run task=kinetics400 ckpt=demo data.root=videos.csv", "videos.csv is a file: wanted a folder with train.csv"
    ),
    Mistake("run task=kinetics400 ckpt=demo data.root=nothing", "has no train.csv or annotations/train.csv"),
    Mistake("run task=ssv2 ckpt=demo data.root=parent", "Did you mean data.root=parent/sthv2?"),
    Mistake("run task=egoschema ckpt=demo data.root=nothing", "has neither questions.json nor a csv of the questions"),
    Mistake("run task=folder ckpt=demo data.root=films", "wanted at least two, CLASS/x.mp4 or train/CLASS/x.mp4"),
    Mistake("run task=folder ckpt=demo data.root=frames", "folders of images must be made videos: ffmpeg"),
    Mistake("run task=folder ckpt=demo data.root=nothing", "found no file"),
    Mistake("run task=folder ckpt=demo data.root=semicolon.csv", "its values are separated by ';': save it with ','"),
    Mistake("run task=folder ckpt=demo data.root=nohead.csv", "its first line must name the columns: put path,label"),
    Mistake(
        "run task=folder ckpt=demo data.root=columns.csv", "no column 'path'; wanted path,label, found 'file,class"
    ),
    Mistake("run task=folder ckpt=demo data.root=empty.csv", "empty.csv is empty; wanted a table with the columns"),
    Mistake("run task=folder ckpt=demo data.root=films/00.mp4", "it is not text: wanted a table as csv"),
    Mistake(
        "run task=folder ckpt=demo data.root=absent.csv",
        "data.videos=FOLDER says where they lie",
        "run task=folder ckpt=demo data.root=absent.csv data.videos=films",
    ),
    Mistake("run task=folder ckpt=demo data.root=test.csv", "has no train split"),
    Mistake("run task=folder ckpt=demo data=videos.csv", "Did you mean 'data.root'?", OWN),
    Mistake("run task=folder ckpt=demo root=videos.csv", "Did you mean 'data.root'?", OWN),
    Mistake("run task=folder ckpt=videomae-base data.root=videos.csv", "Did you mean 'videomae_base'?"),
    Mistake("run task=folder ckpt=VideoMAE-B data.root=videos.csv", "Did you mean 'videomae_base'?"),
    Mistake("run task=folder ckpt=Demo data.root=videos.csv", "Did you mean 'demo'?", OWN),
    Mistake("run task=folder ckpt=nowhere.pt data.root=videos.csv", "ckpt=nowhere.pt: no such file or folder"),
    Mistake(
        "run task=folder ckpt=VideoMAE data.root=videos.csv", "its weights alone are ckpt=VideoMAE/model.safetensors"
    ),
    Mistake("run task=folder ckpt=wrapped.pt data.root=videos.csv", "encoder.prefix= the start of the encoder's names"),
    Mistake("run task=folder ckpt=last.ckpt data.root=videos.csv", "does not say which model it belongs to"),
    Mistake(
        "run task=folder ckpt=last.ckpt encoder.model=mydemo encoder.prefix=module. data.root=videos.csv",
        "model.encoder.",
        "run task=folder ckpt=last.ckpt encoder.model=mydemo encoder.prefix=model.encoder. data.root=videos.csv",
    ),
    Mistake(
        "run task=folder ckpt=weights.zip data.root=videos.csv", "unpack it first; wanted a folder, or .safetensors"
    ),
    Mistake("run task=folder ckpt=notes.txt data.root=videos.csv", "notes.txt does not end as a checkpoint does"),
    Mistake("run task=folder ckpt=my_encoder.py data.root=videos.csv", "name its function, ckpt=my_encoder:build"),
    Mistake("run task=folder ckpt=my_encoder:bulid data.root=videos.csv", "Did you mean 'build'?"),
    Mistake("run task=folder ckpt=MCG-NJU/videomae-base data.root=videos.csv", "HF_HUB_OFFLINE is set: unset it"),
    Mistake(
        "run task=folder ckpt=https://huggingface.co/MCG-NJU/videomae-base data.root=videos.csv",
        "is named alone: ckpt=MCG-NJU/videomae-base",
    ),
    Mistake("run task=folder ckpt=none data.root=videos.csv", "ckpt=none: adapter probe needs an encoder's features"),
    Mistake("run task=egoschema ckpt=none mini=true lm=bert-base-uncased", "HF_HUB_OFFLINE is set"),
    Mistake("run task=egoschema ckpt=none mini=true lm=bert", "bert"),
    Mistake(
        f"{OWN} out=notes.txt",
        "out=notes.txt is a file; name a folder for the results, such as out=results",
        f"{OWN} out=results",
    ),
    Mistake(f"{OWN} out=/proc/results", "out=/proc/results: cannot write there"),
    Mistake(f"{OWN} devices=1000", "devices=1000: this machine has"),
    Mistake(f"{OWN} nodes=2", "nodes=2: evalkit starts processes on its own machine only"),
    Mistake(f"{OWN} adapter.from=nowhere", "adapter.from=nowhere: no trained adapter probe there"),
]

# --- the other commands ----------------------------------------------------------------------------------------------
OTHERS = [
    Mistake("list", "list takes one of tasks, encoders"),
    Mistake("list task", "Did you mean 'evalkit list tasks'?", "list tasks"),
    Mistake("list encoders clip_large", "'evalkit list encoders' shows all, and 'evalkit run", "list encoders"),
    Mistake(
        "list adapters probe",
        "'evalkit list adapters' shows all, and 'evalkit run task=TASK adapter=probe --help' what one may be given",
        "list adapters",
    ),
    Mistake("list models", "Did you mean 'evalkit list encoders'?", "list encoders"),
    Mistake("score", "score takes the folder of one run, got nothing; runs below results: results/"),
    Mistake("score results", "no result.json in it; runs below it: results/", "score {A}"),
    Mistake("score nowhere", "nowhere: there is no such folder; runs below results: results/", "score {A}"),
    Mistake("compare {A} {A}9", "there is no such folder; runs below results/demo/egoschema@mini: ", "compare {A} {B}"),
    Mistake("score predictions=notes.txt", "needs task=..."),
    Mistake("score task=egoschema mini=true predictions=nowhere.json", "there is no such file"),
    Mistake("score task=egoschema mini=true predictions=notes.txt", "cannot read notes.txt as JSON"),
    Mistake("score task=egoschema mini=true predictions=captions.json", "captions.json"),
    Mistake("validate nothing", "no run at or under 'nothing': a run is a folder with result.json in it"),
    Mistake("validate nowhere", "no run at or under 'nowhere', which does not exist"),
    Mistake("validate notes.txt", "no run at or under 'notes.txt'"),
    Mistake(
        "compare results", "compare takes two or more runs, got results; runs below it: results/", "compare {A} {B}"
    ),
    Mistake("compare {A},{B}", "Write blanks between several: evalkit compare results/", "compare {A} {B}"),
    Mistake("validate {A},{B}", "Write blanks between several: evalkit validate results/", "validate {A} {B}"),
    Mistake("compare {A}", "compare takes two or more runs"),
    Mistake("compare {A} {OTHER}", "cannot be compared: task.name is egoschema@mini and msvd_qa@mini"),
    Mistake("leaderboard results=nothing", "no run at or under 'nothing'"),
    Mistake("leaderboard out=board.pdf", "wanted a file that ends in .md, .csv or .html", "leaderboard out=board.md"),
    Mistake("leaderboard results", "Did you mean 'results=results'?", "leaderboard results=results"),
    Mistake("leaderboard format=html", "Did you mean 'out=board.html'?", "leaderboard out=board.html"),
    Mistake("leaderboard result=results", "Did you mean 'results=results'?", "leaderboard results=results"),
    Mistake("export", "export needs to=FORMAT, one of clip_benchmark"),
    Mistake("export csv", "Did you mean 'to=csv'?", "export to=csv"),
    Mistake("export to=csv2", "Did you mean 'csv'?", "export to=csv"),
    Mistake("export format=csv", "Did you mean 'to=csv'?", "export to=csv"),
    Mistake("power difference=2%", "expected a number, such as difference=2", "power difference=2"),
    Mistake("power n=500", "power takes difference=, baseline=, correlation=, samples="),
    Mistake("power task=folder", "or give power the number of its test samples, samples=500", "power samples=500"),
    Mistake("cache clear", "prune=0 none", "cache prune=10"),
    Mistake("cache prune=10GB", "prune=10 leaves ten gigabytes", "cache prune=10"),
    Mistake("sweep task=folder data.root=videos.csv ckpt=demo adapter.lr=1e-4, 1e-3", "Write adapter.lr=1e-4,1e-3"),
    Mistake("sweep task=folder data.root=videos.csv ckpt=demo adapter.lr=[1e-4,1e-3]", "adapter.lr=1e-4,1e-3"),
    Mistake("sweep task=folder data.root=videos.csv ckpt=demo lr=1e-4,1e-3", "Did you mean 'adapter.lr'?"),
    Mistake(
        "sweep task=folder data.root=videos.csv ckpt=vit:make,demo encoder.width=32",
        "encoder.width fits ckpt=vit:make: make two sweeps with the same out=results, one of ckpt=vit:make with",
    ),
    Mistake(
        "sweep task=folder data.root=videos.csv ckpt=vit:make,random:vivit_demo,demo encoder.depth=2",
        "fits ckpt=random:vivit_demo: make two sweeps with the same out=results, one of ckpt=random:vivit_demo with "
        "encoder.depth=, and one of ckpt=vit:make,demo with what fits it",
    ),
    Mistake(
        "sweep task=folder data.root=videos.csv ckpt=vit:make,demo encoder.wdth=32", "Did you mean 'encoder.width'?"
    ),
    Mistake("study unknown", "Known: longvivit_frames, longvivit_memory"),
    Mistake("study longvivit_memory", "give msrvtt.data.root=FOLDER, or mini=true"),
    Mistake("verify my_encoder_on_ssv2", "`evalkit verify list` shows all", "verify list"),
    Mistake("canary", "canary needs ckpt=..."),
    Mistake("canary vit:make", "Did you mean 'ckpt=vit:make'?", "canary ckpt=vit:make"),
    Mistake("canary random:vivit_demo", "Did you mean 'ckpt=random:vivit_demo'?"),
    Mistake("canary mydemo", "Did you mean 'ckpt=mydemo'?"),
    Mistake(f"{OWN} adapter.head:linear", "Did you mean 'adapter.head=linear'?", f"{OWN} adapter.head=linear"),
    Mistake("check task=folder data.root=videos.csv ckpt=demo", "unknown key 'ckpt'"),
    Mistake("adapt task=folder data.root=videos.csv ckpt=demo", "adapt needs out=..."),
    Mistake(
        "adapt task=folder data.root=videos.csv ckpt=demo out=results", "nothing is overwritten: name another folder"
    ),
    Mistake("sign {A}", "sign takes one run and key=FILE, a private SSH key"),
    Mistake("doctor all", "doctor takes"),
]

# --- a week with an encoder of one's own and a list of captions ------------------------------------------------------
VIT = "run task=folder data.root=videos.csv ckpt=net.ckpt encoder.model=vit:make encoder.prefix=net."
WEEK = [
    Mistake("run task=folder data.root=videos.csv ckpt=vit.py", "ckpt=vit:make", f"{OWN[:-4]}vit:make"),
    Mistake("run task=folder data.root=videos.csv ckpt=vit.make", "ckpt=vit:make", f"{OWN[:-4]}vit:make"),
    Mistake("run task=folder data.root=videos.csv ckpt=../outer.py", "ckpt=outer:make, with PYTHONPATH=.. before"),
    Mistake(VIT.replace("vit:make", "../outer.py:make"), "encoder.model=outer:make, with PYTHONPATH=.. before evalkit"),
    Mistake("run task=folder data.root=videos.csv ckpt=vit:make()", "without brackets: ckpt=vit:make"),
    Mistake(VIT.replace("vit:make", "vit.py"), "name its function, encoder.model=vit:make", VIT),
    Mistake(VIT.replace("vit:make", "vit.py:make"), "without .py: encoder.model=vit:make", VIT),
    Mistake(VIT.replace("vit:make", "vit.make"), "name its function, encoder.model=vit:make", VIT),
    Mistake(VIT.replace("prefix=net.", "prefix=net"), "Did you mean net.?", VIT),
    Mistake(f"{VIT} encoder.heads=4", "encoder vit:make takes encoder.width, encoder.model, encoder.prefix"),
    Mistake(f"{VIT} encoder.wdth=16", "Did you mean 'encoder.width'?", f"{VIT} encoder.width=16"),
    Mistake(f"{VIT} encoder.width=32", "project.weight is (16, 3), wanted (32, 3)"),
    Mistake(
        VIT.replace("net.ckpt", "args.ckpt"),
        "it holds argparse.Namespace, which can run code when loaded. If you trust it, save only its weights: python",
        f"{VIT.replace('net.ckpt', 'args.ckpt')} trust=true",
    ),
    Mistake("run task=folder data.root=videos.csv ckpt=net.ckpt encoder.width=16", "net.ckpt takes encoder.model"),
    Mistake("run task=folder data.root=videos.csv ckpt=random:demo", "Did you mean 'vivit_demo'?"),
    Mistake(f"{OWN} clip.fps=8", "add clip.sampling=fps", f"{OWN} clip.fps=8 clip.sampling=fps"),
    Mistake(f"{OWN} clip.stride=2", "add clip.sampling=dense", f"{OWN} clip.stride=2 clip.sampling=dense"),
    Mistake(f"{OWN} log=tensorbord,csv", "Did you mean log=tensorboard,csv?"),
    Mistake("run task=retrieval ckpt=demo", "say where it is, data.root=FILE (or mini=true"),
    Mistake("run task=retrieval data.root=commas.csv ckpt=demo", "put a value that contains ',' in quotes"),
    Mistake("plan suite=videoglue ckpt=demo", "`evalkit run suite=videoglue ...` runs all"),
    Mistake("check task=folder data.root=videos.csv out=films", "name a file for the list, such as out=films/missing"),
    Mistake("show", "show takes the folder of one run, got nothing; runs below results: results/", "show {A}"),
    Mistake("validate {A} strict=true", "validate takes paths of results, signers= and task=, got 'strict=true'"),
    Mistake("push results=results", "push needs repo=OWNER/NAME"),
    Mistake("init model my_net", "Did you mean 'evalkit init encoder my_net'?"),
    Mistake(f"{OWN} seed=0-2", "evalkit sweep tries several, seed=0,1,2"),
    Mistake(f"{OWN} adapter.lr=log(1e-4,1e-2)", "adapter.lr=log(1e-4,1e-2): expected a number"),
    Mistake("check task=folder data.root=videos.csv --out list.txt", "Write out=list.txt, without dashes"),
]

MISTAKES = [*WORDS, *NAMES, *DATA, *OTHERS, *WEEK]
