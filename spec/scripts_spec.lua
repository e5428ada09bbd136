-- SPDX-License-Identifier: MIT
-- Every script in scripts/ is run here, and what it makes is compared with what it is known to make.
-- When a change of the output is wanted, "tidemill run SCRIPT --input FILE --format payload" writes the new fixture.

local process = require "spec.support.process"
local tm = require "tidemill"
local util = require "spec.support.util"

local GPL = "/usr/share/common-licenses/GPL-3"

describe("scripts/", function()
  local engine, path

  setup(function()
    path = package.path
    package.path = "scripts/?.lua;" .. path   -- as the command does for the scripts it runs
    engine = tm.engine { workers = 2 }
  end)

  teardown(function()
    engine:close()
    package.path = path
  end)

  local function run(script, payload)
    local dag = assert(engine:load("scripts/" .. script))
    return dag:run(payload)
  end

  for _, script in ipairs { "report.dag.lua", "access_log.dag.lua", "markdown.dag.lua" } do
    it(script .. " says what it expects where there is no payload", function()
      local result, err = run(script, nil)
      assert.is_nil(result)
      assert.equal("processor_failed", err.code)
      assert.matches("^expects .+ as its payload$", err.message)
      assert.is_nil(err.traceback)
    end)
  end

  describe("report.dag.lua", function()
    it("reports on a text", function()
      local result = assert(run("report.dag.lua", process.read "spec/fixtures/tide.txt"))
      assert.equal(process.read "spec/fixtures/tide_report.txt", result.payload)
    end)

    it("counts", function()
      local metadata = assert(run("report.dag.lua", process.read "spec/fixtures/tide.txt")).metadata
      assert.equal(77, metadata.words.count)
      assert.equal(6, metadata.sentences.count)
      assert.equal(3, metadata.sentences.paragraphs)
      assert.same({ word = "water", count = 5 }, metadata.frequencies.top[1])
    end)

    it("does not care how lines end", function()
      local text = process.read "spec/fixtures/tide.txt"
      assert.equal(assert(run("report.dag.lua", text)).payload,
        assert(run("report.dag.lua", "\239\187\191" .. text:gsub("\n", "\r\n"))).payload)
    end)

    it("refuses a text without words", function()
      local result, err = run("report.dag.lua", " \n ... \n")
      assert.is_nil(result)
      assert.equal("readability", err.processor)
      assert.equal("there are no words to read", err.message)
    end)

    it("knows the GPL", function()
      if not util.exists(GPL) then return pending(GPL .. " is not on this machine") end
      local result = assert(run("report.dag.lua", process.read(GPL)))
      assert.equal(5606, result.metadata.words.count)
      assert.equal("license", result.metadata.frequencies.top[1].word)
      assert.equal("difficult", result.metadata.readability.grade)
      assert.matches("It keeps talking about\n\n  license    #+ 102\n  work       #+ 95\n", result.payload)
    end)
  end)

  describe("access_log.dag.lua", function()
    it("sums up the sample", function()
      local result = assert(run("access_log.dag.lua", process.read "scripts/data/access.log"))
      assert.equal(process.read "spec/fixtures/access_log.txt", result.payload)
      assert.equal(64, result.metadata.parse.lines)
      assert.equal(5, result.metadata.parse.malformed)
    end)

    it("counts malformed lines instead of failing", function()
      local result = assert(run("access_log.dag.lua", "\0\255\nnot a log\n\n"))
      assert.same({ lines = 2, malformed = 2 },
        { lines = result.metadata.parse.lines, malformed = result.metadata.parse.malformed })
    end)

    it("takes an empty log", function()
      local result = assert(run("access_log.dag.lua", ""))
      assert.matches("Requests +0 requests from 0 addresses", result.payload)
    end)
  end)

  describe("text.combined_log", function()
    local combined

    setup(function() combined = require "text.combined_log" end)

    local LINE = '::1 - ada [12/May/2025:08:00:22 +0200] "GET /a?b HTTP/1.1" 200 17 "-" "x \\"y\\" z"'

    it("reads every field", function()
      assert.same({
        host = "::1", user = "ada", time = "12/May/2025:08:00:22 +0200", method = "GET", path = "/a?b",
        protocol = "HTTP/1.1", status = 200, bytes = 17, referrer = "-", agent = 'x "y" z',
      }, combined.parse(LINE))
    end)

    it("reads the seconds behind it, and no bytes", function()
      assert.equal(0.25, combined.parse(LINE .. " 0.250").seconds)
      assert.equal(0, combined.parse((LINE:gsub(" 17 ", " - "))).bytes)
    end)

    for text, why in pairs {
      [""] = "no address, user and time",
      ['h - - [yesterday] "GET / HTTP/1.1" 200 1 "-" "-"'] = "not a time",
      ['h - - [12/May/2025:08:00:22 +0200] "GET / HT'] = "the request has no end",
      ['h - - [12/May/2025:08:00:22 +0200] "GET /" 200 1 "-" "-"'] = "not a request",
      ['h - - [12/May/2025:08:00:22 +0200] "GET / HTTP/1.1" OK 1 "-" "-"'] = "no status and size",
      ['h - - [12/May/2025:08:00:22 +0200] "GET / HTTP/1.1" 200 1 "-"'] = "no user agent",
      ['h - - [12/May/2025:08:00:22 +0200] "GET / HTTP/1.1" 200 1 "-" "\\"'] = "the user agent has no end",
    } do
      it("says what is wrong: " .. why, function()
        local record, message = combined.parse(text)
        assert.is_nil(record)
        assert.equal(why, message)
      end)
    end
  end)

  describe("markdown.dag.lua", function()
    it("makes a page of the sample", function()
      local result = assert(run("markdown.dag.lua", process.read "scripts/data/guide.md"))
      assert.equal(process.read "spec/fixtures/guide.html", result.payload)
    end)

    it("reports broken and unsafe links", function()
      local links = assert(run("markdown.dag.lua", process.read "scripts/data/guide.md")).metadata.links
      assert.same({ { target = "#tide-tables", text = "the tables" } }, links.broken)
      assert.same({ { target = "javascript:alert(1)", text = "run code" } }, links.unsafe)
      assert.equal(4, links.internal)
    end)

    local function body(markdown)
      return assert(run("markdown.dag.lua", markdown)).payload:match "<main>\n(.*)</main>"
    end

    local cases = {
      { "paragraphs", "one\ntwo\n\nthree", "<p>one\ntwo</p>\n<p>three</p>\n" },
      { "emphasis in strong", "**a *b* c** *d **e** f*",
        "<p><strong>a <em>b</em> c</strong> <em>d <strong>e</strong> f</em></p>\n" },
      { "strong and emphasis that end together", "**a *b*** *a **b***",
        "<p><strong>a <em>b</em></strong> <em>a <strong>b</strong></em></p>\n" },
      { "marks that are no markup", "2 * 3 * 4, snake_case_name, a ** b",
        "<p>2 * 3 * 4, snake_case_name, a ** b</p>\n" },
      { "marks without an end", "*a **b", "<p>*a **b</p>\n" },
      { "code spans", "`a < b` `` ` `` `*x*`", "<p><code>a &lt; b</code> <code>`</code> <code>*x*</code></p>\n" },
      { "escapes", "\\*a\\* \\<b\\> \\q", "<p>*a* &lt;b&gt; \\q</p>\n" },
      { "raw HTML", "<b onclick='x'>&amp;", "<p>&lt;b onclick=&#39;x&#39;&gt;&amp;amp;</p>\n" },
      { "links", '[a *b*](c_d_e "f \\"g") [h](<i j>) [k][l]',
        '<p>[a <em>b</em>](c_d_e &quot;f &quot;g&quot;) <a href="i%20j">h</a> [k][l]</p>\n' },
      { "links with parentheses and brackets", "[a [b]](c(d)e)", '<p><a href="c(d)e">a [b]</a></p>\n' },
      { "addresses that would end their attribute", '[a](b"onclick="c)',
        '<p><a href="b&quot;onclick=&quot;c">a</a></p>\n' },
      { "addresses that run code", "[a](JavaScript:x) [b](java\1script:x) ![c](data:text/html,x)",
        '<p><a href="#">a</a> <a href="#">b</a> <img src="#" alt="c"></p>\n' },
      { "images", '![a "b"](c.png "d")', '<p><img src="c.png" alt="a &quot;b&quot;" title="d"></p>\n' },
      { "hard breaks", "a  \nb\\\nc \nd", "<p>a<br>\nb<br>\nc\nd</p>\n" },
      { "headings", "# A #\n###### B\n####### C\n#D", '<h1 id="a">A</h1>\n<h6 id="b">B</h6>\n<p>####### C\n#D</p>\n' },
      { "the same heading thrice", "## A!\n## A?\n## *A*",
        '<h2 id="a">A!</h2>\n<h2 id="a-1">A?</h2>\n<h2 id="a-2"><em>A</em></h2>\n' },
      { "fences", "```lua x\n  <a>\n\n*b*\n```\nc",
        '<pre><code class="language-lua">  &lt;a&gt;\n\n*b*\n</code></pre>\n<p>c</p>\n' },
      { "a fence without an end", "~~~\na", "<pre><code>a\n</code></pre>\n" },
      { "rules", "***\n- - -\n___", "<hr>\n<hr>\n<hr>\n" },
      { "quotes", "> a\n> > b\n>\n> c",
        "<blockquote>\n<p>a</p>\n<blockquote>\n<p>b</p>\n</blockquote>\n<p>c</p>\n</blockquote>\n" },
      { "lists", "- a\n- b\n  - c\n- d", "<ul>\n<li>a</li>\n<li>b\n<ul>\n<li>c</li>\n</ul></li>\n<li>d</li>\n</ul>\n" },
      { "lists set apart by blank lines", "* a\n\n* b", "<ul>\n<li><p>a</p></li>\n<li><p>b</p></li>\n</ul>\n" },
      { "numbered lists", "7. a\n8. b\n\n1) c",
        '<ol start="7">\n<li>a</li>\n<li>b</li>\n</ol>\n<ol>\n<li>c</li>\n</ol>\n' },
      { "items of several blocks", "- a\n\n  b\n\n      c", "<ul>\n<li><p>a</p>\n<p>b</p>\n<p>c</p></li>\n</ul>\n" },
      { "tabs and carriage returns", "-\ta\r\n\tb\r\n", "<ul>\n<li>a\nb</li>\n</ul>\n" },
      { "nothing", "", "" },
    }
    for _, case in ipairs(cases) do
      it("reads " .. case[1], function() assert.equal(case[3], body(case[2])) end)
    end

    it("stays well-formed however deep the text nests", function()
      local html = body((">"):rep(500) .. " a\n\n" .. ("**_"):rep(200) .. "b")
      local _, opened = html:gsub("<blockquote>", "")
      local _, closed = html:gsub("</blockquote>", "")
      assert.is_true(opened > 1)
      assert.equal(opened, closed)
    end)
  end)

  describe("diamond.dag.lua", function()
    it("joins by depth, then by declaration", function()
      local result = assert(run "diamond.dag.lua")
      local saw = {}
      for _, id in ipairs { "tie", "depth", "named", "both" } do saw[id] = result.metadata[id].saw end
      assert.same({
        tie = "start > right", depth = "start > deep > deeper", named = "start > left",
        both = "start > left   and   start > right",
      }, saw)
      assert.matches("\nanswer saw  start > deep > deeper\n", result.payload)
    end)

    it("starts from its payload", function()
      assert.equal("moon > right", assert(run("diamond.dag.lua", " moon\n")).metadata.tie.saw)
    end)
  end)

  -- Under fail_fast, whether the other branch had run by then is a matter of time; everything else is certain.
  it("failure_strategies.lua compares the strategies", function()
    local finished = process.lua { "scripts/failure_strategies.lua" }
    assert.equal("", finished.stderr)
    assert.equal(0, finished.status)
    local output = finished.stdout:gsub("(\nstock +)%l+ +", "%1* ")
    assert.equal(process.read "spec/fixtures/failure_strategies.txt", output)
  end)
end)
