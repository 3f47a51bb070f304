"""What the paper published, claims and does in its code, and what others measured: as data, with sources.

The paper is Runbin He, "ECE371 Neural Networks and Deep Learning, Assignment 1", Sun Yat-sen University, 2025. Its
author's code and report are public at https://github.com/SYSUSZ-ECE371, in the repository
``assignment-1-image-classification-by-using-deep-models-SPMagicherb``, file ``EX2/main.py``, commit 388153b of
2025-05-14.

- Tables 1 to 3: ``resnet18-bs32.csv``, ``resnet18-bs64.csv``, ``resnet34-bs32.csv``; claims, with quotation and
  section: ``claims.csv``; see `published`.
- The method in the text, and in the code as committed: ``as_committed.csv``; see `committed`.
- Seven logs of other students: ``others/``; see `others`.
"""
