"""What each stitch costs and is worth: the lookup tables, their reader, their writers and the profiler.

A table is a folder, `lookup_tables/<family>/`, of four kinds of files:

`family.json`
    What belongs to the family as a whole: `schema` (1), `family`, `anchors` (names), `classes`, `labels` (a text file
    with one label a line, its path relative to this folder and never outside the folder above it), `top1` (`source`,
    `images`) and `flops` (`source`, `convention`): where the figures come from, `preprocessing` (`size` in pixels,
    `crop` as timm's crop_pct, `interpolation`, `mean`, `std`) and `checkpoint` (`name`, `sha256`) or null.
`stitches.csv`
    One row a stitch, ids ascending: `stitch,route,flops,params,top1`. A route names half-open block ranges of anchors,
    `deit_ti[0:4]>deit_s[4:12]`. FLOPs are multiply-adds, the papers' convention; top1 is in percent, empty if unknown.
`modules.csv`
    What the stitches are made of, one row a module: `step,module,joins,flops`. A step is one call: `deit_ti.stem`,
    `deit_ti.blocks.3`, a stitching layer, `deit_s.head` (or `deit_s.bare_head`, which then ends every route of several
    segments), before it `deit_s.blocks.11.last` where a block is another module there than in the middle of a route.
    `module` is its class: modules of one class are built alike, see inputs of one shape and take equally long; what
    lacks latencies of its own as `deit_s.block.last` counts as `deit_s.block`. `joins` says where a stitching layer
    stands: `deit_ti[:4]>deit_s[4:]`, several with spaces between. With the routes this tells which modules a stitch
    passes. `flops` are one call's for one image, of a last block as if it computed all tokens, as the papers count; a
    table may lack that column, or this file.
`latency.<device>.csv`
    What one device measured: lines `# key: value` (`schema` and `device` at least; threads, dtype and the like), then
    `stitch,batch,p50_ms,p99_ms,runs`, and with modules `module` before them: a row is of a module class or of a stitch.
    A module's seconds are those of one call within whole batches; `input` and `output` are what every batch pays. Then
    every stitch that has no rows of its own is predicted as the sum over its modules, and those that have some are the
    ones this fails for (`prediction_error_median`, `prediction_off` and so on say how well it did). Without modules the
    file may cover only some stitches; the others are predicted from their FLOPs.

Accuracy and FLOPs belong to the weights, latency to the machine: profiling again touches one file. Everything is
checked when it is read, and a fault is a `TableError` with file, line, reason and remedy.
"""
