-- SPDX-License-Identifier: MIT
-- A report about an English text: how long, how rich, how hard to read, and what it keeps talking about.
--
--   tidemill run scripts/report.dag.lua --input /usr/share/common-licenses/GPL-3
--
--                 ┌─ words ───────┐
--                 ├─ sentences ───┤
--   normalise ────┼─ frequencies ─┼──── report
--                 └─ readability ─┘
--
-- What it shows: four analyzes that run side by side on one payload, which none of them can change, and a
-- transform behind them that finds their findings in ctx.metadata, each under its processor's id.

local tm = require "tidemill"
local english = require "text.english"
local layout = require "text.layout"

local function measure_words(text)
  local count, letters, different, longest = 0, 0, 0, ""
  local seen = {}
  for word in english.words(text) do
    count, letters = count + 1, letters + #word
    if #word > #longest then longest = word end
    local key = word:lower()
    if not seen[key] then
      seen[key], different = true, different + 1
    end
  end
  return { count = count, different = different, longest = longest, mean_length = letters / math.max(count, 1) }
end

local function measure_sentences(text)
  local sentences = english.sentences(text)
  local words, most, longest = 0, 0, ""
  for _, sentence in ipairs(sentences) do
    local n = english.count_words(sentence)
    words = words + n
    if n > most then most, longest = n, sentence end
  end
  return {
    count = #sentences,
    paragraphs = #english.paragraphs(text),
    mean_words = words / math.max(#sentences, 1),
    most_words = most,
    longest = longest,
  }
end

-- The most frequent words first; equally frequent ones in alphabetical order, so that the answer is always the same.
local function count_frequencies(text, ctx)
  local counts, ranking = {}, {}
  for word in english.words(text) do
    local key = word:lower()
    if #key > 2 and not english.is_common(key) then counts[key] = (counts[key] or 0) + 1 end
  end
  for word, count in pairs(counts) do
    ranking[#ranking + 1] = { word = word, count = count }
  end
  table.sort(ranking, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return a.word < b.word
  end)
  local top = {}
  for i = 1, math.min(ctx.options.top, #ranking) do top[i] = ranking[i] end
  return { top = top }
end

local GRADES = {
  { 90, "very easy" }, { 80, "easy" }, { 70, "fairly easy" }, { 60, "plain English" },
  { 50, "fairly difficult" }, { 30, "difficult" }, { -math.huge, "very difficult" },
}

local function grade(ease)
  for _, entry in ipairs(GRADES) do
    if ease >= entry[1] then return entry[2] end
  end
end

-- Flesch reading ease: 100 is a children's book, 0 a contract.
local function measure_readability(text)
  local words, syllables, sentences = 0, 0, #english.sentences(text)
  for word in english.words(text) do
    words, syllables = words + 1, syllables + english.syllables(word)
  end
  if words == 0 then return nil, "there are no words to read" end
  local ease = 206.835 - 1.015 * words / math.max(sentences, 1) - 84.6 * syllables / words
  return { ease = ease, grade = grade(ease) }
end

local function write_report(_, ctx)
  local words, sentences = ctx.metadata.words, ctx.metadata.sentences
  local readability, top = ctx.metadata.readability, ctx.metadata.frequencies.top
  local minutes = math.ceil(words.count / 230)   -- words that people read in a minute

  local page = layout.page "A reading report"
  page:row("Length", "%s, %s, %s; %s to read", layout.count(words.count, "word"),
    layout.count(sentences.count, "sentence"), layout.count(sentences.paragraphs, "paragraph"),
    layout.count(minutes, "minute"))
  page:row("Vocabulary", "%s, %.1f letters in a word; the longest is \"%s\"",
    layout.count(words.different, "different word"), words.mean_length, words.longest)
  page:row("Readability", "%.0f of 100 (Flesch reading ease): %s", readability.ease, readability.grade)
  page:row("Sentences", "%.1f words on average; the longest has %d:", sentences.mean_words, sentences.most_words)
  page:quote(sentences.longest, 240)
  page:bars("It keeps talking about", top, "word", "count")
  return page:text()
end

return tm.dag {
  name = "report",

  tm.transform("normalise", function(text)
    if type(text) ~= "string" then return nil, "expects a text as its payload" end
    return english.normalise(text)
  end),

  tm.analyze "words"       { depends_on = "normalise", run = measure_words },
  tm.analyze "sentences"   { depends_on = "normalise", run = measure_sentences },
  tm.analyze "frequencies" { depends_on = "normalise", run = count_frequencies, options = { top = 10 } },
  tm.analyze "readability" { depends_on = "normalise", run = measure_readability },

  tm.transform "report" {
    depends_on = { "words", "sentences", "frequencies", "readability" },
    run = write_report,
  },
}
