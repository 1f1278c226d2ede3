"""What `benchmarks/finetune.py` is made of.

tasks.py     subsets of Banking77 and CLINC150, as files of rows
trainer.py   TRL's SFTTrainer on such files, in a process of its own
run.py       one training, ours or TRL's, measured from process start to exit
"""
