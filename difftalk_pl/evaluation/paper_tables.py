"""Numbers of the paper's tables 1 to 3, to print beside one's own.

Source: Shen et al., DiffTalk: Crafting Diffusion Models for Generalized Audio-Driven Portraits Animation, CVPR 2023,
arXiv 2301.03786. The ground truth of set A differs from table to table, so that sets A and B are not fixed sets of
clips; clips, crops and SyncNet are not published either. None of these numbers can be compared with measured ones.
"""

TABLES = """\
table,set,method,psnr,ssim,lpips,sync_offset,sync_confidence
table1,A,ground truth,,,,0,9.61
table1,A,without smoothing,33.67,0.944,0.024,1,5.484
table1,A,with smoothing,34.17,0.946,0.024,1,6.287
table1,B,ground truth,,,,0,9.553
table1,B,without smoothing,32.7,0.924,0.031,1,5.197
table1,B,with smoothing,32.73,0.925,0.031,1,5.387
table2,A,ground truth,,,,4,7.762
table2,A,without progressive reference,34.17,0.946,0.024,1,6.287
table2,A,with progressive reference,33.95,0.946,0.023,-1,6.662
table2,B,ground truth,,,,3,8.947
table2,B,without progressive reference,32.73,0.925,0.031,1,5.387
table2,B,with progressive reference,33.02,0.925,0.03,1,5.999
table3,A,ground truth,,,,-1,8.979
table3,A,MakeItTalk,18.77,0.544,0.19,-4,3.936
table3,A,Wav2Lip,25.5,0.761,0.14,-2,8.936
table3,A,AD-NeRF,27.89,0.885,0.072,-2,5.639
table3,A,DFRF,28.6,0.892,0.068,-1,5.999
table3,A,DiffTalk,34.54,0.95,0.024,-1,6.381
table3,B,ground truth,,,,-2,7.924
table3,B,MakeItTalk,17.7,0.648,0.129,-3,3.416
table3,B,Wav2Lip,33.38,0.942,0.027,-3,9.385
table3,B,AD-NeRF,30.14,0.947,0.023,-3,4.246
table3,B,DFRF,33.57,0.949,0.025,-2,4.432
table3,B,DiffTalk,34.01,0.95,0.02,-1,5.639
"""  # csv, empty where the paper prints a dash
