"""What each stitch costs and is worth: the lookup tables, their reader, their writers and the profiler.

A table is a folder, `lookup_tables/<family>/`, of three kinds of files:

`family.json`
    What belongs to the family as a whole: `schema` (1), `family`, `anchors` (names), `classes`, `labels` (a text file
    with one label a line, its path relative to this folder and never outside the folder above it), `top1` (`source`,
    `images`) and `flops` (`source`, `convention`): where the figures come from, `preprocessing` (`size` in pixels,
    `crop` as timm's crop_pct, `interpolation`, `mean`, `std`) and `checkpoint` (`name`, `sha256`) or null.
`stitches.csv`
    One row a stitch, ids ascending: `stitch,route,flops,params,top1`. A route names half-open block ranges of anchors,
    `deit_ti[0:4]>deit_s[4:12]`. FLOPs are multiply-adds, the papers' convention; top1 is in percent, empty if unknown.
`latency.<device>.csv`
    What one device measured: lines `# key: value` (`schema` and `device` at least; threads, dtype and the like), then
    `stitch,batch,p50_ms,p99_ms,runs`. It may cover only some stitches; the others are predicted from their FLOPs.

Accuracy and FLOPs belong to the weights, latency to the machine: profiling again touches one file. Everything is
checked when it is read, and a fault is a `TableError` with file, line, reason and remedy.
"""
